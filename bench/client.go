// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Target is an API server under measurement.
type Target struct {
	Name    string
	Config  *rest.Config
	Process *Process
}

// FromKubeconfig returns the target of a kubeconfig's current context.
func FromKubeconfig(name, path string, process *Process) (*Target, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, err
	}
	return &Target{Name: name, Config: cfg, Process: process}, nil
}

// The media types of requests and answers.
const (
	asJSON      = "application/json"
	asProtobuf  = "application/vnd.kubernetes.protobuf"
	asStrategic = "application/strategic-merge-patch+json"
	asMerge     = "application/merge-patch+json"
	asApply     = "application/apply-patch+yaml"
)

// client sends bytes and counts bytes: no decoding, so that the load costs the
// machine as little as it can.
type client struct {
	http *http.Client
	base string
	// written is how many requests wanted to change something.
	written atomic.Int64
}

func (t *Target) client() (*client, error) {
	cfg := rest.CopyConfig(t.Config)
	cfg.QPS, cfg.Timeout = -1, 0
	h, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	u, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, err
	}
	return &client{http: h, base: strings.TrimSuffix(u.String(), "/")}, nil
}

// answer is a status that is not success.
type answer struct {
	status int
	text   string
}

func (a *answer) Error() string { return fmt.Sprintf("HTTP %d: %s", a.status, a.text) }

func isStatus(err error, status int) bool {
	var a *answer
	return errors.As(err, &a) && a.status == status
}

// open sends a request and returns the answer's body once its head says success.
func (c *client) open(ctx context.Context, method, path, media, accept string, body []byte) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	if body != nil {
		req.Header.Set("Content-Type", media)
	}
	if method != http.MethodGet {
		c.written.Add(1)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		_, _ = io.Copy(io.Discard, resp.Body)
		return nil, &answer{resp.StatusCode, string(text)}
	}
	return resp.Body, nil
}

// do sends a request and returns how long its answer is.
func (c *client) do(ctx context.Context, method, path, media, accept string, body []byte) (int64, error) {
	r, err := c.open(ctx, method, path, media, accept, body)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.Copy(io.Discard, r)
}

func (c *client) get(ctx context.Context, path, accept string) (int64, error) {
	return c.do(ctx, http.MethodGet, path, "", accept, nil)
}

// read decodes a JSON answer into out.
func (c *client) read(ctx context.Context, path string, out any) error {
	r, err := c.open(ctx, http.MethodGet, path, "", asJSON, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	return json.NewDecoder(r).Decode(out)
}

// post creates an object.
func (c *client) post(ctx context.Context, path string, obj any) error {
	b, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodPost, path, asJSON, asJSON, b)
	return err
}

// poll calls ready until it says true, fails or ctx ends.
func poll(ctx context.Context, every time.Duration, ready func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ok, err := ready()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// namespace makes a namespace for a run; done deletes what runs make there and
// marks the namespace as deleted. It goes where a controller empties namespaces.
func (c *client) namespace(ctx context.Context, name string) (done func(), err error) {
	err = c.post(ctx, "/api/v1/namespaces", map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}})
	if err != nil {
		return nil, fmt.Errorf("making namespace %s: %w", name, err)
	}
	// Pods need the namespace's account. A controller makes it in a moment, if one runs.
	err = c.post(ctx, "/api/v1/namespaces/"+name+"/serviceaccounts", map[string]any{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "default"}})
	if err != nil && !isStatus(err, http.StatusConflict) {
		return nil, fmt.Errorf("making the account of namespace %s: %w", name, err)
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		for _, kind := range []string{"pods", "configmaps"} {
			_, _ = c.do(ctx, http.MethodDelete, "/api/v1/namespaces/"+name+"/"+kind+"?"+url.Values{"gracePeriodSeconds": {"0"}}.Encode(), "", asJSON, nil)
		}
		_, _ = c.do(ctx, http.MethodDelete, "/api/v1/namespaces/"+name, "", asJSON, nil)
	}, nil
}
