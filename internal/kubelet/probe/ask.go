// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/podrun"
)

// Result is the outcome of one run.
type Result int

// Outcomes; Warning counts as success.
const (
	Success Result = iota
	Warning
	Failure
)

const (
	userAgent    = "kube-probe/1.37"
	maxOutput    = 10 << 10
	maxRedirects = 10
)

// ask carries a probe out once. The error says that it could not be.
func (m *Manager) ask(ctx context.Context, p *probe) (Result, string, error) {
	timeout := time.Duration(max(p.spec.TimeoutSeconds, 1)) * time.Second
	switch {
	case p.spec.Exec != nil:
		return m.exec(ctx, p, timeout)
	case p.spec.HTTPGet != nil:
		req, err := request(ctx, p)
		if err != nil {
			return Failure, "", err
		}
		return httpGet(req, timeout)
	case p.spec.TCPSocket != nil:
		port, err := podrun.Port(p.spec.TCPSocket.Port, p.container)
		if err != nil {
			return Failure, "", err
		}
		host := p.spec.TCPSocket.Host
		if host == "" {
			host = p.address
		}
		return dial(ctx, net.JoinHostPort(host, strconv.Itoa(port)), timeout)
	case p.spec.GRPC != nil:
		service := ""
		if p.spec.GRPC.Service != nil {
			service = *p.spec.GRPC.Service
		}
		return grpcCheck(ctx, net.JoinHostPort(p.address, strconv.Itoa(int(p.spec.GRPC.Port))), service, timeout)
	}
	return Failure, "", fmt.Errorf("missing probe handler for %s:%s", p.pod.Name, p.container.Name)
}

func (m *Manager) exec(ctx context.Context, p *probe, timeout time.Duration) (Result, string, error) {
	answer, err := m.cfg.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: p.id, Cmd: p.spec.Exec.Command, Timeout: int64(timeout / time.Second)})
	if err != nil {
		if grpcstatus.Code(err) == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded) {
			return Failure, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(p.spec.Exec.Command, " "), timeout), nil
		}
		return Failure, "", err
	}
	output := append(answer.Stdout, answer.Stderr...)
	if len(output) > maxOutput {
		output = output[:maxOutput]
	}
	if answer.ExitCode != 0 {
		return Failure, string(output), nil
	}
	return Success, string(output), nil
}

func request(ctx context.Context, p *probe) (*http.Request, error) {
	get := p.spec.HTTPGet
	port, err := podrun.Port(get.Port, p.container)
	if err != nil {
		return nil, err
	}
	host := get.Host
	if host == "" {
		host = p.address
	}
	scheme := strings.ToLower(string(get.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	path, err := url.Parse(get.Path)
	if err != nil {
		path = &url.URL{Path: get.Path}
	}
	path.Scheme, path.Host = scheme, net.JoinHostPort(host, strconv.Itoa(port))
	if !strings.HasPrefix(path.Path, "/") {
		path.Path = "/" + path.Path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, path.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, h := range get.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", userAgent)
	}
	if _, ok := req.Header["Accept"]; !ok {
		req.Header.Set("Accept", "*/*")
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	return req, nil
}

// dialer closes with a reset: a node with thousands of probes must not fill
// up with sockets in TIME_WAIT.
func dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{Timeout: timeout, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			// A socket that cannot be told so is only closed more slowly.
			_ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 1})
		})
	}}
}

func httpGet(req *http.Request, timeout time.Duration) (Result, string, error) {
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // probes ask whether it answers, not who
		DisableKeepAlives: true, DisableCompression: true, DialContext: dialer(timeout).DialContext,
	}
	client := &http.Client{Timeout: timeout, Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if next.URL.Hostname() != via[0].URL.Hostname() {
			return http.ErrUseLastResponse
		}
		if len(via) >= maxRedirects {
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}}
	answer, err := client.Do(req)
	if err != nil {
		return Failure, err.Error(), nil
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxOutput))
	if err != nil {
		return Failure, "", err
	}
	switch {
	case answer.StatusCode >= 300 && answer.StatusCode < 400:
		return Warning, fmt.Sprintf("Probe terminated redirects, Response body: %v", string(body)), nil
	case answer.StatusCode >= 200 && answer.StatusCode < 400:
		return Success, string(body), nil
	}
	return Failure, fmt.Sprintf("HTTP probe failed with statuscode: %d", answer.StatusCode), nil
}

func dial(ctx context.Context, address string, timeout time.Duration) (Result, string, error) {
	conn, err := dialer(timeout).DialContext(ctx, "tcp", address)
	if err != nil {
		return Failure, err.Error(), nil
	}
	_ = conn.Close() // it answered; how it ends does not matter
	return Success, "", nil
}

func grpcCheck(ctx context.Context, address, service string, timeout time.Duration) (Result, string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithUserAgent(userAgent), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) {
			return dialer(timeout).DialContext(ctx, "tcp", a)
		}))
	if err != nil {
		return Failure, fmt.Sprintf("error: failed to connect service at %q: %+v", address, err), nil
	}
	defer conn.Close()
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(metadata.NewOutgoingContext(ctx, metadata.MD{}),
		&grpc_health_v1.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
	if err != nil {
		switch grpcstatus.Code(err) {
		case codes.Unimplemented:
			return Failure, fmt.Sprintf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", grpcstatus.Convert(err).Message()), nil
		case codes.DeadlineExceeded:
			return Failure, fmt.Sprintf("timeout: failed to connect service %q within %v: %s", address, timeout, grpcstatus.Convert(err).Message()), nil
		}
		return Failure, fmt.Sprintf("error: health rpc probe failed: %+v", err), nil
	}
	if answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return Failure, fmt.Sprintf("service unhealthy (responded with %q)", answer.Status), nil
	}
	return Success, fmt.Sprintf("service healthy (responded with %q)", answer.Status), nil
}
