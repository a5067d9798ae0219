// Post admission reviews over kept-alive connections, as fast as they are answered, and tell as JSON how it went.
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
	Longest     float64        `json:"longest"`
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

func main() {
	url := flag.String("url", "", "where to post to")
	ca := flag.String("ca", "", "file with the authorities to trust")
	bodies := flag.String("bodies", "", "file with one review a line, posted in turn")
	workers := flag.Int("connections", 1, "posts at once")
	seconds := flag.Float64("seconds", 0, "how long; 0 until SIGTERM")
	http2 := flag.Bool("http2", false, "HTTP/2, one connection for all, where the server offers it")
	timeout := flag.Duration("timeout", 3*time.Second, "longest wait for an answer")
	count := flag.Int64("count", 0, "how many; 0 for no limit")
	every := flag.Duration("every", 0, "time from post to post of a connection; 0 for as fast as they are answered")
	flag.Parse()
	if err := run(*url, *ca, *bodies, *workers, *seconds, *http2, *timeout, *count, *every); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(url, ca, bodies string, workers int, seconds float64, http2 bool, timeout time.Duration, count int64, every time.Duration) error {
	lines, err := os.ReadFile(bodies)
	if err != nil {
		return err
	}
	posts := bytes.Split(bytes.TrimSpace(lines), []byte("\n"))
	transport := &http.Transport{MaxIdleConnsPerHost: workers, MaxConnsPerHost: workers, ForceAttemptHTTP2: http2}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(http2)
	transport.Protocols = protocols
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s: no certificate", ca)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	if seconds > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
		defer cancel()
	}
	client := &http.Client{Transport: transport, Timeout: timeout}
	done := make([]worker, workers)
	var posted atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for n := range done {
		all.Go(func() { done[n].work(ctx, client, url, posts, &posted, count, every) })
	}
	all.Wait()
	return tell(done, time.Since(began))
}

// work posts until the time is up, the next body each time, at most one in `every`. A post that was begun is always waited for.
func (w *worker) work(ctx context.Context, client *http.Client, url string, posts [][]byte, posted *atomic.Int64, count int64, every time.Duration) {
	w.Failures, w.Protocols = map[string]int{}, map[string]int{}
	for ctx.Err() == nil {
		number := posted.Add(1)
		if count > 0 && number > count {
			return
		}
		began := time.Now()
		err := w.post(client, url, posts[(number-1)%int64(len(posts))])
		w.waits = append(w.waits, time.Since(began))
		if err != nil {
			w.Failures[err.Error()]++
		}
		if left := every - time.Since(began); left > 0 {
			select {
			case <-time.After(left):
			case <-ctx.Done():
			}
		}
	}
}

func (w *worker) post(client *http.Client, url string, body []byte) error {
	answer, err := client.Post(url, "application/json", bytes.NewReader(body))
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

// cause is the innermost error: the outer ones name ports, which would make each text another.
func cause(err error) error {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err
}

func tell(done []worker, took time.Duration) error {
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
	}
	return json.NewEncoder(os.Stdout).Encode(total)
}
