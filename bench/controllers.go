// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"time"
)

// Controllers measures a controller manager: Deployments that nobody changes, a
// rolling update, pods that fail, and the deletion of a large namespace.
type Controllers struct {
	// Deployments is how many stand idle; they have no pods.
	Deployments int
	// Pods is how many the Deployment has that is updated.
	Pods int
	// Failing is how many pods fail; none when zero.
	Failing int
	// Objects is how many ConfigMaps the namespace holds that is deleted.
	Objects int
	Workers int
	// Idle is how long the controllers are left alone.
	Idle time.Duration
	// Binary is this program; its API server and controller manager are started
	// unless a target is given, whose Process is then the controller manager.
	// Upstream is the kube-controller-manager to start instead of this program's.
	Binary, Upstream string
}

// DefaultControllers is a cluster that has grown.
func DefaultControllers() Controllers {
	return Controllers{Deployments: 1000, Pods: 300, Failing: 1000, Objects: 10000, Workers: 16, Idle: 30 * time.Second}
}

// Run measures t, or a controller manager of this program's when t is nil.
func (b Controllers) Run(ctx context.Context, t *Target, report *Report) error {
	if t == nil {
		own, err := b.start(ctx)
		if err != nil {
			return err
		}
		defer own.stop()
		t = own.Target
	}
	c, err := t.client()
	if err != nil {
		return err
	}
	for _, part := range []func(context.Context, *client, *Target, *Report) error{b.idle, b.rollout, b.failing, b.namespace} {
		if err := part(ctx, c, t, report); err != nil {
			return err
		}
	}
	return nil
}

// start runs a control plane whose process under measurement is the controller
// manager.
func (b Controllers) start(ctx context.Context) (*plane, error) {
	p, err := startPlane(ctx, b.Binary)
	if err != nil {
		return nil, err
	}
	keys := filepath.Join(p.dir, "data", "pki")
	name, binary, args := "controller-manager", b.Binary, []string{"controller-manager"}
	if b.Upstream != "" { // which would send no more than 20 requests a second
		name, binary, args = "kube-controller-manager", b.Upstream, []string{"--kube-api-qps=1000", "--kube-api-burst=2000"}
		p.Name = filepath.Base(b.Upstream) + ", " + p.Name
	}
	pid, err := p.exec(ctx, name, binary, append(args, "--kubeconfig", p.config, "--use-service-account-credentials", "--leader-elect=false", "--secure-port=0",
		"--root-ca-file", filepath.Join(keys, "ca.crt"), "--service-account-private-key-file", filepath.Join(keys, "sa.key"))...)
	if err == nil {
		p.Process, err = Watch(pid)
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// place is a namespace of a part, empty of what an earlier run left.
func (b Controllers) place(ctx context.Context, c *client, name string) error {
	if err := b.gone(ctx, c, name); err != nil {
		return err
	}
	if err := c.post(ctx, "/api/v1/namespaces", map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}); err != nil {
		return fmt.Errorf("making namespace %s: %w", name, err)
	}
	return poll(ctx, 50*time.Millisecond, func() (bool, error) {
		_, err := c.get(ctx, "/api/v1/namespaces/"+name+"/serviceaccounts/default", asJSON)
		if isStatus(err, http.StatusNotFound) {
			return false, nil
		}
		return err == nil, err
	})
}

// gone deletes a namespace and waits until it is no more.
func (b Controllers) gone(ctx context.Context, c *client, name string) error {
	_, err := c.do(ctx, http.MethodDelete, "/api/v1/namespaces/"+name, "", asJSON, nil)
	if err != nil && !isStatus(err, http.StatusNotFound) && !isStatus(err, http.StatusConflict) {
		return err
	}
	return poll(ctx, 20*time.Millisecond, func() (bool, error) {
		_, err := c.get(ctx, "/api/v1/namespaces/"+name, asJSON)
		if isStatus(err, http.StatusNotFound) {
			return true, nil
		}
		return false, err
	})
}

func deployment(name string, replicas int, image string) map[string]any {
	labels := map[string]any{"app": name}
	return map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": name}, "spec": map[string]any{
		"replicas": replicas, "selector": map[string]any{"matchLabels": labels},
		"template": map[string]any{"metadata": map[string]any{"labels": labels}, "spec": map[string]any{
			"automountServiceAccountToken": false, "schedulerName": "none", "terminationGracePeriodSeconds": 0,
			"containers": []any{map[string]any{"name": "c", "image": image}}}},
	}}
}

// idle makes Deployments without pods and, when all are settled, leaves the
// controllers alone.
func (b Controllers) idle(ctx context.Context, c *client, t *Target, report *Report) error {
	const ns = "bench-idle"
	if err := b.place(ctx, c, ns); err != nil {
		return err
	}
	path := "/apis/apps/v1/namespaces/" + ns + "/deployments"
	made := measure(ctx, "create Deployments", t.Process, b.Workers, b.Deployments, func(ctx context.Context, i int) (int64, error) {
		return 0, c.post(ctx, path, deployment(fmt.Sprint("d", i), 0, "one"))
	})
	add(report, t, made)
	if made.Errors > 0 {
		return fmt.Errorf("creating Deployments: %s", made.Error)
	}
	last := time.Duration(-1)
	if err := poll(ctx, 5*time.Second, func() (bool, error) { // settled is who computes nothing
		now := t.Process.CPU()
		still := now-last < 100*time.Millisecond
		last = now
		return still, nil
	}); err != nil {
		return err
	}
	res := idle(ctx, t.Process, b.Idle)
	res.Operation = fmt.Sprintf("idle with %d Deployments", b.Deployments)
	add(report, t, res)
	return b.gone(ctx, c, ns)
}

// rollout updates a Deployment whose pods are made ready as soon as they are.
func (b Controllers) rollout(ctx context.Context, c *client, t *Target, report *Report) error {
	const ns = "bench-rollout"
	if err := b.place(ctx, c, ns); err != nil {
		return err
	}
	path := "/apis/apps/v1/namespaces/" + ns + "/deployments"
	if err := c.post(ctx, path, deployment("d", b.Pods, "one")); err != nil {
		return err
	}
	if err := b.settled(ctx, c, ns); err != nil {
		return err
	}
	work, err := begin(ctx, c, t)
	if err != nil {
		return err
	}
	body := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"two"}]}}}}`)
	if _, err := c.do(ctx, http.MethodPatch, path+"/d", asStrategic, asJSON, body); err != nil {
		return err
	}
	if err := b.settled(ctx, c, ns); err != nil {
		return err
	}
	if err := work.end(ctx, c, t, report, fmt.Sprintf("rolling update of %d pods", b.Pods)); err != nil {
		return err
	}
	return b.gone(ctx, c, ns)
}

// settled makes pods ready until their Deployment has as many as it wants, all
// of its newest template.
func (b Controllers) settled(ctx context.Context, c *client, ns string) error {
	ready, err := json.Marshal(map[string]any{"status": map[string]any{"phase": "Running", "conditions": []any{
		map[string]any{"type": "Ready", "status": "True", "lastTransitionTime": time.Now().UTC().Format(time.RFC3339)}}}})
	if err != nil {
		return err
	}
	done := map[string]bool{}
	return poll(ctx, 50*time.Millisecond, func() (bool, error) {
		var pods struct {
			Items []struct{ Metadata struct{ Name string } }
		}
		if err := c.read(ctx, "/api/v1/namespaces/"+ns+"/pods?fieldSelector=status.phase%3DPending", &pods); err != nil {
			return false, err
		}
		for _, p := range pods.Items {
			if done[p.Metadata.Name] {
				continue
			}
			_, err := c.do(ctx, http.MethodPatch, "/api/v1/namespaces/"+ns+"/pods/"+p.Metadata.Name+"/status", asStrategic, asJSON, ready)
			if err != nil && !isStatus(err, http.StatusNotFound) {
				return false, err
			}
			done[p.Metadata.Name] = true
		}
		var d struct {
			Metadata struct{ Generation int }
			Status   struct{ ObservedGeneration, Replicas, UpdatedReplicas, AvailableReplicas int }
		}
		err := c.read(ctx, "/apis/apps/v1/namespaces/"+ns+"/deployments/d", &d)
		s := d.Status
		return s.ObservedGeneration == d.Metadata.Generation && s.Replicas == b.Pods && s.UpdatedReplicas == b.Pods && s.AvailableReplicas == b.Pods, err
	})
}

// namespace deletes a namespace full of ConfigMaps.
func (b Controllers) namespace(ctx context.Context, c *client, t *Target, report *Report) error {
	const ns = "bench-full"
	if err := b.place(ctx, c, ns); err != nil {
		return err
	}
	filled := measure(ctx, "fill", t.Process, b.Workers, b.Objects, func(ctx context.Context, i int) (int64, error) {
		return 0, c.post(ctx, "/api/v1/namespaces/"+ns+"/configmaps", map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": fmt.Sprint("c", i)}, "data": map[string]any{"key": "value"}})
	})
	if filled.Errors > 0 {
		return fmt.Errorf("making objects: %s", filled.Error)
	}
	before, began := t.Process.CPU(), time.Now()
	if err := b.gone(ctx, c, ns); err != nil {
		return err
	}
	add(report, t, Result{Operation: fmt.Sprintf("delete a namespace of %d objects", b.Objects), Count: 1, Elapsed: time.Since(began), CPU: t.Process.CPU() - before})
	return nil
}
