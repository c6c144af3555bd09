// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// web is a small web server that shows the pod it runs in, its environment and
// its files.
func web(ctx context.Context, s *stdio, args []string) int {
	flags := flag.NewFlagSet("web", flag.ContinueOnError)
	flags.SetOutput(s.err)
	port := flags.Int("port", 8080, "port to listen on")
	dir := flags.String("dir", "/www", "directory whose files are served below /files/")
	title := flags.String("title", valueOf(s.env, "TITLE"), "first line of the page")
	delay := flags.Duration("ready-after", 0, "how long /readyz says no after the start")
	if flags.Parse(args) != nil {
		return 2
	}
	started := time.Now()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { page(w, r, s, *title) })
	mux.HandleFunc("/hostname", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, hostname()) })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if left := *delay - time.Since(started); left > 0 {
			http.Error(w, fmt.Sprintf("ready in %v", left.Round(time.Second)), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, strings.Join(sorted(s.env), "\n")) })
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"method": r.Method, "host": r.Host, "path": r.URL.Path, "query": r.URL.RawQuery, "client": r.RemoteAddr, "headers": r.Header})
	})
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.PathValue("code"))
		if err != nil || code < 200 || code > 599 {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
	})
	mux.Handle("/files/", http.StripPrefix("/files/", http.FileServer(http.Dir(*dir))))
	server := &http.Server{Addr: net.JoinHostPort("", strconv.Itoa(*port)), Handler: logged(s, mux), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		// What does not end in time is cut off with the process.
		_ = server.Shutdown(end)
	}()
	fmt.Fprintf(s.out, "listening on port %d\n", *port)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return s.fail("web", err)
	}
	<-done
	return 0
}

func page(w http.ResponseWriter, r *http.Request, s *stdio, title string) {
	if title != "" {
		fmt.Fprintln(w, title)
	}
	fmt.Fprintf(w, "pod       %s\n", hostname())
	for _, name := range []string{"POD_NAMESPACE", "POD_IP", "NODE_NAME"} {
		if v := valueOf(s.env, name); v != "" {
			fmt.Fprintf(w, "%-9s %s\n", strings.ToLower(strings.TrimPrefix(name, "POD_")), v)
		}
	}
	fmt.Fprintf(w, "client    %s\nrequest   %s %s%s\n", r.RemoteAddr, r.Method, r.Host, r.URL.RequestURI())
}

// logged writes one line a request, as web servers do.
func logged(s *stdio, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(s.out, "%s %s %s %s\n", time.Now().UTC().Format(time.RFC3339), r.RemoteAddr, r.Method, r.URL.Path)
		next.ServeHTTP(w, r)
	})
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

func valueOf(env []string, name string) string {
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

func sorted(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return out
}

// crash ends with a status after a while: crash [-after 5s] [-status 1] [message].
func crash(ctx context.Context, s *stdio, args []string) int {
	flags := flag.NewFlagSet("crash", flag.ContinueOnError)
	flags.SetOutput(s.err)
	after := flags.Duration("after", 0, "how long to wait first")
	code := flags.Int("status", 1, "exit status")
	if flags.Parse(args) != nil {
		return 2
	}
	wait(ctx, *after)
	if message := strings.Join(flags.Args(), " "); message != "" {
		fmt.Fprintln(s.err, message)
		// A pod's status shows what stands in this file.
		_ = os.WriteFile("/dev/termination-log", []byte(message+"\n"), 0o644)
	}
	return *code
}

// load uses processor time or memory: load [-cpu 0.5] [-memory 64] [-for 1m].
func load(ctx context.Context, s *stdio, args []string) int {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.SetOutput(s.err)
	cpu := flags.Float64("cpu", 1, "processors to keep busy")
	memory := flags.Int("memory", 0, "MiB to hold")
	long := flags.Duration("for", 0, "how long; zero is for ever")
	if flags.Parse(args) != nil {
		return 2
	}
	if *long > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *long)
		defer cancel()
	}
	held := make([]byte, *memory<<20)
	for i := 0; i < len(held); i += 4096 {
		held[i] = 1
	}
	fmt.Fprintf(s.out, "holding %d MiB, keeping %.2f processors busy\n", *memory, *cpu)
	for left := *cpu; left > 0; left-- {
		go spin(ctx, min(left, 1))
	}
	<-ctx.Done()
	runtime.KeepAlive(held)
	return 0
}

// spin keeps one processor busy for a share of the time.
func spin(ctx context.Context, share float64) {
	const period = 20 * time.Millisecond
	for ctx.Err() == nil {
		until := time.Now().Add(time.Duration(share * float64(period)))
		for time.Now().Before(until) {
		}
		wait(ctx, time.Duration((1-share)*float64(period)))
	}
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
