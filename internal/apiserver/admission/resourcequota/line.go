// SPDX-License-Identifier: Apache-2.0

package resourcequota

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/api/quota"
	"kaji/internal/apiserver/admission"
	"kaji/internal/client"
)

// Bounds of one batch: how long it may take, and how often a quota that
// somebody else wrote in between is read and charged again.
const (
	batchTime = 10 * time.Second
	attempts  = 5
)

// line are the requests of one namespace. One of those that wait leads: it
// judges all that wait with it against the same quotas and writes each quota
// once. A thousand pods at once take as many writes as there are batches.
type line struct {
	waiting []*waiter
}

type waiter struct {
	attrs     *admission.Attributes
	evaluator *quota.Evaluator

	decided bool
	err     error
	// done is closed when the request was judged, lead when it is its turn to
	// lead those that came later.
	done, lead chan struct{}
}

func (w *waiter) decide(err error) { w.decided, w.err = true, err }

// charge judges a request together with all others of its namespace that come
// at the same time.
func (p *Plugin) charge(a *admission.Attributes, e *quota.Evaluator) error {
	w := &waiter{attrs: a, evaluator: e, done: make(chan struct{}), lead: make(chan struct{})}
	p.mu.Lock()
	l, busy := p.lines[a.Namespace]
	if !busy {
		l = &line{}
		p.lines[a.Namespace] = l
		close(w.lead)
	}
	l.waiting = append(l.waiting, w)
	p.mu.Unlock()

	select {
	case <-w.done:
		return w.err
	case <-w.lead:
	}
	p.mu.Lock()
	batch := l.waiting
	l.waiting = nil
	p.mu.Unlock()
	p.judge(a.Namespace, batch)
	for _, other := range batch {
		close(other.done)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(l.waiting) == 0 {
		delete(p.lines, a.Namespace)
	} else {
		close(l.waiting[0].lead)
	}
	return w.err
}

// judge decides all requests of a batch.
func (p *Plugin) judge(namespace string, batch []*waiter) {
	// The batch belongs to nobody's request: none of them ends it.
	ctx, cancel := context.WithTimeout(context.Background(), batchTime)
	defer cancel()
	all, err := p.quotas(ctx, namespace)
	for try := 1; err == nil; try++ {
		charged := p.judgeAll(all, batch)
		failed, writeErr := p.write(ctx, all, charged)
		if len(failed) == 0 {
			settle(batch, nil)
			return
		}
		if try == attempts || ctx.Err() != nil {
			settle(batch, writeErr)
			return
		}
		// Only what could not be written is judged again: the others are
		// charged already.
		all, err = p.again(ctx, namespace, failed)
	}
	if ctx.Err() != nil {
		err = apierrors.NewInternalError(fmt.Errorf("resource quota evaluation timed out"))
	}
	settle(batch, err)
}

// settle decides what waited for the quotas to be written.
func settle(batch []*waiter, err error) {
	for _, w := range batch {
		if !w.decided {
			w.decide(err)
		}
	}
}

// judgeAll judges the undecided requests, each against what the ones before it
// leave. It returns the quotas as they are to be written; those without a
// change are the same pointers.
func (p *Plugin) judgeAll(all []*corev1.ResourceQuota, batch []*waiter) []*corev1.ResourceQuota {
	now := slices.Clone(all)
	for _, w := range batch {
		if w.decided {
			continue
		}
		next, err := p.check(now, w.attrs, w.evaluator)
		switch {
		case err != nil:
			w.decide(err)
		case w.attrs.DryRun || slices.Equal(next, now):
			w.decide(nil)
		default:
			now = next
		}
	}
	return now
}

// write stores the status of the quotas that changed and returns the names of
// those that could not be.
func (p *Plugin) write(ctx context.Context, old, now []*corev1.ResourceQuota) (failed []string, err error) {
	r := client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("resourcequotas"), Subresource: "status"}
	for i, q := range now {
		if q == old[i] {
			continue
		}
		r.Namespace = q.Namespace
		if _, writeErr := p.cfg.Client.Update(ctx, r, q.Name, q, metav1.UpdateOptions{}); writeErr != nil {
			failed, err = append(failed, q.Name), writeErr
		}
	}
	return failed, err
}

// again reads the named quotas anew; those that are gone do not limit any more.
func (p *Plugin) again(ctx context.Context, namespace string, names []string) ([]*corev1.ResourceQuota, error) {
	if _, err := p.cfg.Cache.WaitNewest(ctx); err != nil {
		return nil, err
	}
	all, err := p.quotas(ctx, namespace)
	return slices.DeleteFunc(all, func(q *corev1.ResourceQuota) bool { return !slices.Contains(names, q.Name) }), err
}
