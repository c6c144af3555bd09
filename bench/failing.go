// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// together is how many pods that fail a ReplicaSet has at most.
const together = 500

// failing lets pods fail, half of them of ReplicaSets that make others, half of
// Jobs that allow no failure, and counts what the controllers write about it.
func (b Controllers) failing(ctx context.Context, c *client, t *Target, report *Report) error {
	const ns = "bench-failing"
	if b.Failing == 0 {
		return nil
	}
	if err := b.place(ctx, c, ns); err != nil {
		return err
	}
	work, err := begin(ctx, c, t)
	if err != nil {
		return err
	}
	jobs := b.Failing / 2
	sets := (b.Failing - jobs + together - 1) / together
	replicas := (b.Failing - jobs) / sets
	made := measure(ctx, "owners of pods that fail", t.Process, b.Workers, sets+jobs, func(ctx context.Context, i int) (int64, error) {
		if i < sets {
			return 0, c.post(ctx, "/apis/apps/v1/namespaces/"+ns+"/replicasets", failingSet(fmt.Sprint("s", i), replicas))
		}
		return 0, c.post(ctx, "/apis/batch/v1/namespaces/"+ns+"/jobs", failingJob(fmt.Sprint("j", i)))
	})
	if made.Errors > 0 {
		return fmt.Errorf("making ReplicaSets and Jobs: %s", made.Error)
	}
	many := sets*replicas + jobs
	if err := b.fail(ctx, c, ns, many); err != nil {
		return err
	}
	if err := b.told(ctx, c); err != nil {
		return err
	}
	if err := work.end(ctx, c, t, report, fmt.Sprintf("%d pods fail", many)); err != nil {
		return err
	}
	return b.gone(ctx, c, ns)
}

func failingTemplate(name string) map[string]any {
	return map[string]any{"metadata": map[string]any{"labels": map[string]any{"app": name}}, "spec": map[string]any{
		"automountServiceAccountToken": false, "schedulerName": "none", "terminationGracePeriodSeconds": 0,
		"containers": []any{map[string]any{"name": "c", "image": "one"}}}}
}

func failingSet(name string, replicas int) map[string]any {
	return map[string]any{"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": map[string]any{"name": name}, "spec": map[string]any{
		"replicas": replicas, "selector": map[string]any{"matchLabels": map[string]any{"app": name}}, "template": failingTemplate(name)}}
}

func failingJob(name string) map[string]any {
	template := failingTemplate(name)
	template["spec"].(map[string]any)["restartPolicy"] = "Never"
	return map[string]any{"apiVersion": "batch/v1", "kind": "Job", "metadata": map[string]any{"name": name}, "spec": map[string]any{
		"backoffLimit": 0, "template": template}}
}

// fail evicts so many pods as soon as they are there.
func (b Controllers) fail(ctx context.Context, c *client, ns string, many int) error {
	status, err := json.Marshal(map[string]any{"status": map[string]any{"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}})
	if err != nil {
		return err
	}
	path := "/api/v1/namespaces/" + ns + "/pods"
	events, err := c.open(ctx, http.MethodGet, path+"?watch=true", "", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", nil)
	if err != nil {
		return err
	}
	defer events.Close()
	names := make(chan string, many) // whoever reads slowly is cut off
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { events.Close() })()
	for range b.Workers {
		group.Go(func() error {
			for name := range names {
				_, err := c.do(ctx, http.MethodPatch, path+"/"+name+"/status", asMerge, asJSON, status)
				if err != nil && !isStatus(err, http.StatusNotFound) {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(names)
		return added(events, many, names)
	})
	return group.Wait()
}

// added passes on the names of the first objects that a watch tells of.
func added(watch io.Reader, many int, names chan<- string) error {
	for in := json.NewDecoder(watch); many > 0; {
		var e struct {
			Type   string
			Object struct{ Metadata struct{ Name string } }
		}
		if err := in.Decode(&e); err != nil {
			return fmt.Errorf("watching pods: %w", err)
		}
		if e.Type == "ADDED" {
			names <- e.Object.Metadata.Name
			many--
		}
	}
	return nil
}

// told waits until the controllers have nothing more to write for a while.
func (b Controllers) told(ctx context.Context, c *client) error {
	last, still := writes{}, 0
	return poll(ctx, 2*time.Second, func() (bool, error) {
		now, err := c.writes(ctx)
		if now == last {
			still++
		} else {
			last, still = now, 0
		}
		return still == 3, err
	})
}
