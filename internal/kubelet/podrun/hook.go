// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
)

// HTTPDoer sends requests of hooks.
type HTTPDoer interface {
	Do(*http.Request) (*http.Response, error)
}

// hookClient asks whether a pod answers, not who it is, as probes do; it stays
// with the host that it was sent to.
func hookClient() *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	return &http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if next.URL.Hostname() != via[0].URL.Hostname() {
			return http.ErrUseLastResponse
		}
		if len(via) >= 10 {
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}}
}

// hook runs a lifecycle hook to its end; ips may be nil, then they are asked for.
func (r *Runner) hook(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string, ips []string, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		answer, err := r.cfg.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: h.Exec.Command, Timeout: seconds(ctx)})
		if err != nil {
			return fmt.Errorf("Exec lifecycle hook (%v) for Container %q in Pod %q failed - error: %w", h.Exec.Command, c.Name, describe(pod), err) //nolint:staticcheck // upstream's text
		}
		if answer.ExitCode != 0 {
			return fmt.Errorf("Exec lifecycle hook (%v) for Container %q in Pod %q failed - error: command '%s' exited with %d: %s, message: %q", //nolint:staticcheck // upstream's text
				h.Exec.Command, c.Name, describe(pod), strings.Join(h.Exec.Command, " "), answer.ExitCode, answer.Stderr, append(answer.Stdout, answer.Stderr...))
		}
		return nil
	case h.HTTPGet != nil:
		if err := r.httpHook(ctx, pod, c, ips, h.HTTPGet); err != nil {
			return fmt.Errorf("HTTP lifecycle hook (%s) for Container %q in Pod %q failed - error: %w", h.HTTPGet.Path, c.Name, describe(pod), err)
		}
		return nil
	case h.TCPSocket != nil:
		return nil // deprecated: upstream does nothing
	case h.Sleep != nil:
		timer := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("sleep: container terminated before sleep hook finished: %w", ctx.Err())
		}
	}
	return fmt.Errorf("invalid handler: %v", h)
}

// seconds is what is left of a context's time, rounded up; zero for no limit.
func seconds(ctx context.Context) int64 {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(int64((time.Until(deadline)+time.Second-1)/time.Second), 1)
}

func (r *Runner) httpHook(ctx context.Context, pod *corev1.Pod, c *corev1.Container, ips []string, get *corev1.HTTPGetAction) error {
	host := get.Host
	if host == "" {
		if len(ips) == 0 {
			a, err := actual.Observe(ctx, r.cfg.Runtime, pod.Namespace, pod.Name, pod.UID)
			if err != nil {
				return fmt.Errorf("find the pod's address: %w", err)
			}
			if ips = a.IPs(); pod.Spec.HostNetwork && pod.Status.HostIP != "" {
				ips = []string{pod.Status.HostIP}
			}
		}
		if len(ips) == 0 {
			return fmt.Errorf("failed to find networking container: %s", c.Name)
		}
		host = ips[0]
	}
	port, err := Port(get.Port, c)
	if err != nil {
		return err
	}
	scheme := strings.ToLower(string(get.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	url := fmt.Sprintf("%s://%s/%s", scheme, net.JoinHostPort(host, strconv.Itoa(port)), strings.TrimPrefix(get.Path, "/"))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	for _, header := range get.HTTPHeaders {
		req.Header.Add(header.Name, header.Value)
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "kube-lifecycle/1.37")
	}
	answer, err := r.cfg.Hooks.Do(req)
	if err != nil && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		plain := req.Clone(ctx)
		plain.URL.Scheme = "http"
		plain.Header.Del("Authorization")
		if answer, err = r.cfg.Hooks.Do(plain); err == nil {
			if r.cfg.FellBack != nil {
				r.cfg.FellBack()
			}
			r.cfg.Recorder.Eventf(Reference(pod), corev1.EventTypeWarning, "LifecycleHTTPFallback",
				"request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", req.URL.Host)
		}
	}
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(answer.Body, 10<<10))
	return err
}

// Port resolves a port of a container by number or name.
func Port(p intstr.IntOrString, c *corev1.Container) (int, error) {
	port := p.IntValue()
	if p.Type == intstr.String {
		port = 0
		for _, one := range c.Ports {
			if one.Name == p.StrVal {
				port = int(one.ContainerPort)
			}
		}
		if port == 0 {
			n, err := strconv.Atoi(p.StrVal)
			if err != nil {
				return 0, fmt.Errorf("couldn't find port: %v in container %s", p.StrVal, c.Name)
			}
			port = n
		}
	}
	if port <= 0 || port > 65535 {
		return 0, fmt.Errorf("invalid port number: %v", port)
	}
	return port, nil
}
