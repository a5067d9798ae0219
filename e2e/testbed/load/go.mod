// A client that posts reviews as kube-apiserver does; only Go's own library, so that it builds anywhere in seconds.
module mirrorstream/load

go 1.24
