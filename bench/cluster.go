// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Cluster measures a whole cluster of this program from nothing: until the API
// server and the node are ready, until pods run, and what it costs idle.
type Cluster struct {
	// Binary is this program.
	Binary string
	// Pods are started at once after the first one.
	Pods int
	// Image is what they run; its entrypoint gets the word "pause".
	Image string
	// Idle is how long the cluster is left alone, with no pods and with all.
	Idle time.Duration
	// Args are more arguments for `up`.
	Args []string
}

// DefaultCluster fits a machine of two cores.
func DefaultCluster(image string) Cluster {
	return Cluster{Pods: 50, Image: image, Idle: 20 * time.Second}
}

const clusterName = "bench"

type clusterRun struct {
	Cluster
	dir    string
	t      *Target
	c      *client
	report *Report
}

// Run starts a cluster named bench, measures it, and removes it with its data.
func (b Cluster) Run(ctx context.Context, report *Report) (err error) {
	dir, err := os.MkdirTemp("", "kaji-bench-")
	if err != nil {
		return err
	}
	r := &clusterRun{Cluster: b, dir: dir, report: report}
	defer func() {
		if downErr := r.kaji(context.WithoutCancel(ctx), "down", "--purge"); downErr != nil && os.Remove(dir) != nil {
			// Without its data what is left could not be taken down any more.
			err = errors.Join(err, fmt.Errorf("the cluster is left in %s: %w", dir, downErr))
			return
		}
		_ = os.RemoveAll(dir) // nothing of value
	}()
	if err := r.up(ctx); err != nil {
		return err
	}
	done, err := r.c.namespace(ctx, "bench")
	if err != nil {
		return err
	}
	defer done()
	if err := r.pods(ctx, "first pod", 0, 1); err != nil {
		return err
	}
	add(report, r.t, idle(ctx, r.t.Process, b.Idle))
	if err := r.pods(ctx, fmt.Sprintf("%d pods at once", b.Pods), 1, b.Pods); err != nil {
		return err
	}
	res := idle(ctx, r.t.Process, b.Idle)
	res.Operation = fmt.Sprintf("idle with %d pods", b.Pods+1)
	add(report, r.t, res)
	return ctx.Err()
}

func (r *clusterRun) kaji(ctx context.Context, verb string, args ...string) error {
	args = append([]string{verb, "--name", clusterName, "--data-dir", filepath.Join(r.dir, "data")}, args...)
	cmd := exec.CommandContext(ctx, r.Binary, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(r.dir, "kubeconfig"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("kaji %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// up starts the cluster and looks at it as soon as it answers.
func (r *clusterRun) up(ctx context.Context) error {
	began := time.Now()
	failed := make(chan error, 1)
	go func() { failed <- r.kaji(ctx, "up", r.Args...) }()
	admin := filepath.Join(r.dir, "data", "admin.kubeconfig")
	err := r.until(ctx, func(ctx context.Context) (bool, error) {
		select {
		case err := <-failed:
			failed <- err
			return false, err
		default:
		}
		t, err := FromKubeconfig("kaji", admin, nil)
		if err != nil {
			return false, nil
		}
		if r.c, err = t.client(); err != nil {
			return false, nil
		}
		r.t = t
		_, err = r.c.get(ctx, "/readyz", "*/*")
		return err == nil, nil
	})
	if err != nil {
		return err
	}
	add(r.report, r.t, Result{Operation: "exec to /readyz", Count: 1, Elapsed: time.Since(began)})
	if err := <-failed; err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(r.dir, "data", "kaji.pid"))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return err
	}
	if r.t.Process, err = Watch(pid); err != nil {
		return err
	}
	res := Result{Operation: "exec to node Ready", Count: 1, Elapsed: time.Since(began), CPU: r.t.Process.CPU()}
	res.RSS, res.Anonymous = r.t.Process.Memory()
	add(r.report, r.t, res)
	return nil
}

func (r *clusterRun) until(ctx context.Context, ready func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return poll(ctx, 5*time.Millisecond, func() (bool, error) { return ready(ctx) })
}

// pods makes count pods and waits until all of them are Running.
func (r *clusterRun) pods(ctx context.Context, name string, from, count int) error {
	before, began := r.t.Process.CPU(), time.Now()
	for i := from; i < from+count; i++ {
		pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: podName(i), Labels: map[string]string{"app": "bench"}},
			Spec: corev1.PodSpec{TerminationGracePeriodSeconds: ptr.To[int64](0), Containers: []corev1.Container{{Name: "c", Image: r.Image, Args: []string{"pause"}, ImagePullPolicy: corev1.PullIfNotPresent}}}}
		b, err := json.Marshal(pod)
		if err != nil {
			return err
		}
		if _, err := r.c.do(ctx, http.MethodPost, "/api/v1/namespaces/bench/pods", asJSON, asJSON, b); err != nil {
			return err
		}
	}
	err := r.until(ctx, func(ctx context.Context) (bool, error) {
		var list corev1.PodList
		if err := r.c.read(ctx, "/api/v1/namespaces/bench/pods?fieldSelector=status.phase%3DRunning", &list); err != nil {
			return false, err
		}
		return len(list.Items) >= from+count, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for pods to run: %w", err)
	}
	res := Result{Operation: name, Count: count, Elapsed: time.Since(began), CPU: r.t.Process.CPU() - before}
	res.RSS, res.Anonymous = r.t.Process.Memory()
	add(r.report, r.t, res)
	return nil
}
