// SPDX-License-Identifier: Apache-2.0

// Package bubble is for the controllers' tests: it runs a controller against a
// control plane of the test's own, on a clock of its own, once as it is and
// once with every write failing first. Nothing but tests imports it.
package bubble

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"

	"kaji/internal/client"
	"kaji/kajitest"
)

// Controller is what is tested. Run returns when ctx ends.
type Controller interface {
	Run(ctx context.Context) error
}

// Bubble is a running control plane with the controller.
type Bubble struct {
	*testing.T
	*kajitest.Cluster
	API client.Interface
}

// Run calls test twice with controllers that run: with their writes as they
// are, and with each write failing once before it is done and once after.
func Run(t *testing.T, start func(client.Interface) []Controller, test func(*Bubble), options ...kajitest.Option) {
	RunAs(t, "", start, test, options...)
}

// RunAs is Run with controllers that write and read live as a ServiceAccount of
// kube-system, with the rights that every cluster gives it and no others: a
// refusal fails the test. Without an account everything is allowed.
func RunAs(t *testing.T, account string, start func(client.Interface) []Controller, test func(*Bubble), options ...kajitest.Option) {
	if account != "" {
		options = append(slices.Clone(options), kajitest.WithRBAC())
	}
	RunEach(t, map[string]func(client.Interface) []Controller{account: start}, test, options...)
}

// RunEach is RunAs with controllers of several accounts; kajitest.WithRBAC is
// the caller's to give.
func RunEach(t *testing.T, starts map[string]func(client.Interface) []Controller, test func(*Bubble), options ...kajitest.Option) {
	for name, wrap := range map[string]func(client.Interface) client.Interface{
		"plain":  func(api client.Interface) client.Interface { return api },
		"faults": func(api client.Interface) client.Interface { return &faulty{Interface: api, tries: map[string]int{}} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := kajitest.Start(t, options...)
				ctx, cancel := context.WithCancel(t.Context())
				var running sync.WaitGroup
				for account, start := range starts {
					for _, c := range start(wrap(Account(cluster, account))) {
						running.Go(func() {
							if err := c.Run(ctx); err != nil {
								t.Error(err)
							}
						})
					}
					defer Allowed(t, cluster, account)
				}
				defer func() { cancel(); running.Wait() }()
				b := &Bubble{t, cluster, cluster.Client()}
				b.Settle()
				test(b)
			})
		})
	}
}

const accounts = "system:serviceaccount:kube-system:"

// Account returns the client of a controller's ServiceAccount; its informers, as
// those of all controllers, and its discovery are the control plane's own.
// Without a name it is the administrator's.
func Account(cluster *kajitest.Cluster, name string) client.Interface {
	if name == "" {
		return cluster.Client()
	}
	own := cluster.As(&user.DefaultInfo{Name: accounts + name,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", user.AllAuthenticated}})
	return account{client.WithInformers(own, cluster.Client()), cluster.Client().RESTConfig()}
}

type account struct {
	client.Interface
	config *rest.Config
}

// RESTConfig implements client.Interface.
func (a account) RESTConfig() *rest.Config { return a.config }

// Allowed checks that nothing was refused an account.
func Allowed(t *testing.T, cluster *kajitest.Cluster, name string) {
	t.Helper()
	if lacks := cluster.Denied(accounts + name); len(lacks) > 0 {
		t.Errorf("%s is refused: %s", name, strings.Join(lacks, ", "))
	}
}

// Settle lets everything come to rest: what is to be tried again soon is tried.
func (b *Bubble) Settle() { b.Wait(5 * time.Second) }

// Wait lets time go by.
func (b *Bubble) Wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// Must ends the test at an error and returns the value without one.
func Must[V any](v V, err error) func(*Bubble) V {
	return func(b *Bubble) V {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
		return v
	}
}

// faulty fails writes. Events are spared: they are best effort.
type faulty struct {
	client.Interface
	mu    sync.Mutex
	tries map[string]int
}

// fail does the write or not, and says what the caller gets to know of it.
func (f *faulty) fail(verb string, r client.Resource, name string, write func() error) error {
	f.mu.Lock()
	key := verb + " " + r.GroupVersionResource.String() + " " + r.Namespace + "/" + name + "/" + r.Subresource
	n := f.tries[key]
	f.tries[key]++
	f.mu.Unlock()
	if n > 1 || r.GroupVersionResource.Resource == "events" {
		return write()
	}
	lost := apierrors.NewServerTimeout(r.GroupResource(), verb, 0)
	if n == 0 {
		return lost
	}
	_ = write()
	return lost
}

// Create implements client.Verbs.
func (f *faulty) Create(ctx context.Context, r client.Resource, name string, obj runtime.Object, opts metav1.CreateOptions) (out runtime.Object, err error) {
	id := name
	if o, ok := obj.(client.Object); ok && id == "" {
		id = o.GetName()
	}
	err = f.fail("create", r, id, func() error {
		out, err = f.Interface.Create(ctx, r, name, obj, opts)
		return err
	})
	return out, err
}

// Update implements client.Verbs.
func (f *faulty) Update(ctx context.Context, r client.Resource, name string, obj runtime.Object, opts metav1.UpdateOptions) (out runtime.Object, err error) {
	err = f.fail("update", r, name, func() error {
		out, err = f.Interface.Update(ctx, r, name, obj, opts)
		return err
	})
	return out, err
}

// Patch implements client.Verbs.
func (f *faulty) Patch(ctx context.Context, r client.Resource, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions) (out runtime.Object, err error) {
	err = f.fail("patch", r, name, func() error {
		out, err = f.Interface.Patch(ctx, r, name, pt, data, opts)
		return err
	})
	return out, err
}

// Delete implements client.Verbs.
func (f *faulty) Delete(ctx context.Context, r client.Resource, name string, opts metav1.DeleteOptions) error {
	return f.fail("delete", r, name, func() error { return f.Interface.Delete(ctx, r, name, opts) })
}
