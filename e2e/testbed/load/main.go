// Post admission reviews over kept-alive connections, as fast as they are answered, and tell as JSON how it went.
//
// With -pods the bodies are pods that an API server creates.
//
// kube-apiserver is a Go client: it opens connections ahead of need and leaves them idle.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type result struct {
	Reviews     int            `json:"reviews"`
	Seconds     float64        `json:"seconds"`
	P50         float64        `json:"p50"`
	P99         float64        `json:"p99"`
	Mean        float64        `json:"mean"`
	Longest     float64        `json:"longest"`
	Waits       []float64      `json:"waits,omitempty"`
	Patched     int            `json:"patched"`
	Denied      int            `json:"denied"`
	Failures    map[string]int `json:"failures"`
	Protocols   map[string]int `json:"protocols"`
	Connections int            `json:"connections"`
}

type worker struct {
	result
	waits []time.Duration
}

type review struct {
	Response struct {
		Allowed bool   `json:"allowed"`
		Patch   string `json:"patch"`
	} `json:"response"`
}

type pod struct {
	Spec struct {
		Containers []struct {
			Image string `json:"image"`
		} `json:"containers"`
	} `json:"spec"`
}

// options are what is posted, where to, and how often.
type options struct {
	url, ca, cert, key, bodies string
	workers                    int
	seconds                    float64
	http2, pods, waits         bool
	timeout, every             time.Duration
	count                      int64
}

func main() {
	var o options
	flag.StringVar(&o.url, "url", "", "where to post to")
	flag.StringVar(&o.ca, "ca", "", "file with the authorities to trust")
	flag.StringVar(&o.cert, "cert", "", "file with a client certificate")
	flag.StringVar(&o.key, "key", "", "file with its key")
	flag.StringVar(&o.bodies, "bodies", "", "file with one body a line, posted in turn")
	flag.IntVar(&o.workers, "connections", 1, "posts at once")
	flag.Float64Var(&o.seconds, "seconds", 0, "how long; 0 until SIGTERM")
	flag.BoolVar(&o.http2, "http2", false, "HTTP/2, one connection for all, where the server offers it")
	flag.BoolVar(&o.pods, "pods", false, "the bodies are pods, to be created")
	flag.BoolVar(&o.waits, "waits", false, "tell how long each post took")
	flag.DurationVar(&o.timeout, "timeout", 3*time.Second, "longest wait for an answer")
	flag.Int64Var(&o.count, "count", 0, "how many; 0 for no limit")
	flag.DurationVar(&o.every, "every", 0, "time from post to post of a connection; 0 for as fast as they are answered")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	lines, err := os.ReadFile(o.bodies)
	if err != nil {
		return err
	}
	posts := bytes.Split(bytes.TrimSpace(lines), []byte("\n"))
	transport := &http.Transport{MaxIdleConnsPerHost: o.workers, MaxConnsPerHost: o.workers, ForceAttemptHTTP2: o.http2}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(o.http2)
	transport.Protocols = protocols
	if o.ca != "" {
		pem, err := os.ReadFile(o.ca)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s: no certificate", o.ca)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return err
		}
		transport.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	if o.seconds > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(o.seconds*float64(time.Second)))
		defer cancel()
	}
	client := &http.Client{Transport: transport, Timeout: o.timeout}
	done := make([]worker, o.workers)
	var posted atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for n := range done {
		all.Go(func() { done[n].work(ctx, client, o, posts, &posted) })
	}
	all.Wait()
	return tell(done, time.Since(began), o.waits)
}

// work posts until the time is up, the next body each time, at most one in `every`. A post that was begun is always waited for.
func (w *worker) work(ctx context.Context, client *http.Client, o options, posts [][]byte, posted *atomic.Int64) {
	w.Failures, w.Protocols = map[string]int{}, map[string]int{}
	for ctx.Err() == nil {
		number := posted.Add(1)
		if o.count > 0 && number > o.count {
			return
		}
		began := time.Now()
		err := w.post(client, o, posts[(number-1)%int64(len(posts))])
		w.waits = append(w.waits, time.Since(began))
		if err != nil {
			w.Failures[err.Error()]++
		}
		if left := o.every - time.Since(began); left > 0 {
			select {
			case <-time.After(left):
			case <-ctx.Done():
			}
		}
	}
}

func (w *worker) post(client *http.Client, o options, body []byte) error {
	answer, err := client.Post(o.url, "application/json", bytes.NewReader(body))
	if err != nil {
		return cause(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return cause(err)
	}
	w.Reviews++
	w.Protocols[answer.Proto]++
	if o.pods {
		return w.created(answer.StatusCode, body, data)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	var found review
	if err := json.Unmarshal(data, &found); err != nil {
		return errors.New("the answer is not a review")
	}
	if !found.Response.Allowed {
		w.Denied++
	}
	if found.Response.Patch != "" {
		w.Patched++
	}
	return nil
}

// created counts a pod whose first image is not the one that was posted as patched.
func (w *worker) created(status int, body, data []byte) error {
	if status != http.StatusCreated {
		return fmt.Errorf("status %d", status)
	}
	var asked, made pod
	if err := errors.Join(json.Unmarshal(body, &asked), json.Unmarshal(data, &made)); err != nil {
		return errors.New("the answer is not a pod")
	}
	if asked.Spec.Containers[0].Image != made.Spec.Containers[0].Image {
		w.Patched++
	}
	return nil
}

// cause is the innermost error: the outer ones name ports, which would make each text another.
func cause(err error) error {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err
}

func tell(done []worker, took time.Duration, each bool) error {
	total := result{Seconds: took.Seconds(), Failures: map[string]int{}, Protocols: map[string]int{}, Connections: len(done)}
	var waits []time.Duration
	for _, w := range done {
		waits = append(waits, w.waits...)
		total.Reviews += w.Reviews
		total.Patched += w.Patched
		total.Denied += w.Denied
		for text, n := range w.Failures {
			total.Failures[text] += n
		}
		for text, n := range w.Protocols {
			total.Protocols[text] += n
		}
	}
	if len(waits) > 0 {
		slices.Sort(waits)
		total.P50 = waits[len(waits)/2].Seconds()
		total.P99 = waits[len(waits)*99/100].Seconds()
		total.Longest = waits[len(waits)-1].Seconds()
		var sum time.Duration
		for _, wait := range waits {
			sum += wait
			if each {
				total.Waits = append(total.Waits, wait.Seconds())
			}
		}
		total.Mean = sum.Seconds() / float64(len(waits))
	}
	return json.NewEncoder(os.Stdout).Encode(total)
}
