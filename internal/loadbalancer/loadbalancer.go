// SPDX-License-Identifier: Apache-2.0

// Package loadbalancer makes the addresses that load balancers have of a pool
// reachable on the nodes' link: for each address one node answers who looks for
// it, by ARP or neighbour discovery. Package app runs it on every node. The
// controller servicelb gives out the addresses, and the service proxy takes the
// packets on; the address is never the node's own.
//
// Nodes agree without asking anybody, so that an address moves while the API
// server is away, too: every node announces its own address on the link twice a
// second, as long as there is something to answer for. Whom all hear, all rank
// alike for each address (rendezvous hashing), and the first one answers. A
// node not heard for two seconds is passed over. With one node there is nothing
// to agree on and nothing is sent.
package loadbalancer

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"kaji/internal/client"
)

// PoolAnnotation is on Services whose addresses are of a pool; the controller
// servicelb sets it.
const PoolAnnotation = "kaji.dev/load-balancer-pool"

const (
	// period is how often a node is heard, and patience how long one is thought
	// alive that is not.
	period   = 500 * time.Millisecond
	patience = 2 * time.Second
	// repeats is how often a new answerer announces an address, a period apart:
	// a neighbour may miss the first time.
	repeats = 4
	// rescan is after how many periods the links are looked at again when
	// nothing happens.
	rescan = 20
)

// Config says which node answers.
type Config struct {
	Client   client.Interface
	NodeName string
	// NetNS is a file descriptor of the network namespace; zero is the own one.
	NetNS  int
	Logger *slog.Logger
}

// Announcer answers for a node. Create it with New.
type Announcer struct {
	c        Config
	services client.Typed[*corev1.Service]
	slices   client.Typed[*discoveryv1.EndpointSlice]
	nodes    client.Typed[*corev1.Node]
	wake     chan struct{}
	peers    peers
	links    *links

	mu       sync.Mutex
	mine     map[netip.Addr]*link // what this node answers for
	rejoined bool                 // a node is heard that was silent

	// What follows belongs to the goroutine of Run.
	bursts map[netip.Addr]int // announcements still to make
	failed string
}

// serviceIndex finds the slices of a Service.
const serviceIndex = "loadbalancer"

// New returns an announcer; nothing is said before Run.
func New(c Config) *Announcer {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Announcer{c: c, wake: make(chan struct{}, 1), mine: map[netip.Addr]*link{}, bursts: map[netip.Addr]int{},
		services: client.For[*corev1.Service](c.Client), slices: client.For[*discoveryv1.EndpointSlice](c.Client), nodes: client.For[*corev1.Node](c.Client)}
	a.peers.heard = map[netip.Addr]time.Time{}
	a.links = newLinks(c.NetNS, a.hear)
	a.slices.AddIndex(serviceIndex, func(s *discoveryv1.EndpointSlice) []string {
		return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}
	})
	watch(a, a.services, func(s *corev1.Service) bool { return s.Annotations[PoolAnnotation] != "" })
	watch(a, a.slices, func(s *discoveryv1.EndpointSlice) bool {
		svc, err := a.services.Cached(s.Namespace, s.Labels[discoveryv1.LabelServiceName])
		return err == nil && svc.Annotations[PoolAnnotation] != ""
	})
	watch(a, a.nodes, func(*corev1.Node) bool { return true })
	return a
}

// watch looks again when an object changes that counts.
func watch[T client.Object](a *Announcer, t client.Typed[T], counts func(T) bool) {
	changed := func(o T) {
		if counts(o) {
			a.notify()
		}
	}
	t.AddHandler(client.Handler[T]{Add: changed, Delete: changed, Update: func(old, o T) { changed(old); changed(o) }})
}

func (a *Announcer) notify() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Run answers until ctx ends.
func (a *Announcer) Run(ctx context.Context) error {
	a.c.Client.Start(ctx)
	if !client.WaitForSync(ctx, a.services.Informer(), a.slices.Informer(), a.nodes.Informer()) {
		return nil
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	for beats := 0; ctx.Err() == nil; beats++ {
		beat := tick.C
		if err := a.look(beats%rescan == 0); err != nil {
			// Said once: it is tried again with every beat.
			if a.failed != err.Error() {
				a.c.Logger.Error("addresses of load balancers cannot be announced", "err", err)
			}
			a.failed, beats = err.Error(), -1
		} else if a.failed = ""; !a.busy() {
			tick.Stop() // an idle node does not wake up
			beat = nil
		}
		select {
		case <-ctx.Done():
		case <-a.wake:
			beats = -1
			tick.Reset(period)
		case <-beat:
			a.say()
		}
	}
	a.take(nil)
	return a.links.close()
}

// busy says whether something is to be said from time to time.
func (a *Announcer) busy() bool { return len(a.bursts) > 0 || a.links.open() && a.peers.any() }

// look decides what this node answers for; scan has it look at its links anew.
func (a *Announcer) look(scan bool) error {
	wanted := a.addresses()
	if len(wanted) == 0 {
		a.take(nil)
		return a.links.close()
	}
	a.peers.know(a.nodes.CachedList("", nil), a.c.NodeName)
	if scan {
		if err := a.links.refresh(wanted); err != nil {
			return err
		}
	}
	mine := map[netip.Addr]*link{}
	for addr, want := range wanted {
		if link := a.links.of(addr); link != nil && a.peers.first(addr, want, a.c.NodeName) == a.c.NodeName {
			mine[addr] = link
		}
	}
	return a.take(mine)
}

// take makes this node answer for exactly these addresses.
func (a *Announcer) take(mine map[netip.Addr]*link) error {
	a.mu.Lock()
	before, rejoined := a.mine, a.rejoined
	a.mine, a.rejoined = mine, false
	a.mu.Unlock()
	var errs []error
	for addr, l := range before {
		if mine[addr] != l {
			if err := l.Forget(addr); !errors.Is(err, os.ErrClosed) { // with its link
				errs = append(errs, err)
			}
			delete(a.bursts, addr)
			a.c.Logger.Info("another node answers for the address of a load balancer", "address", addr)
		}
	}
	for addr, l := range mine {
		if before[addr] != l {
			errs = append(errs, l.Expect(addr), l.Announce(addr))
			a.bursts[addr] = repeats - 1
			a.c.Logger.Info("this node answers for the address of a load balancer", "address", addr, "link", l.name)
		} else if rejoined {
			// The link was in two parts: in the other one that node answered.
			a.bursts[addr] = repeats
		}
	}
	return errors.Join(errs...)
}

// say is what is said from time to time: new addresses again, and that this
// node is there. What cannot be sent now is sent next time.
func (a *Announcer) say() {
	for addr := range a.bursts {
		if l := a.mine[addr]; l != nil {
			_ = l.Announce(addr)
		}
		if a.bursts[addr]--; a.bursts[addr] <= 0 {
			delete(a.bursts, addr)
		}
	}
	if a.peers.any() {
		for _, l := range a.links.all {
			for _, own := range l.own {
				if a.peers.isSelf(own) {
					_ = l.Announce(own)
				}
			}
		}
	}
}

// want is what an address needs of the node that answers.
type want struct {
	// near are the nodes that can take its packets on; nil is all.
	near map[string]bool
}

// addresses returns the addresses of pools that Services have.
func (a *Announcer) addresses() map[netip.Addr]want {
	out := map[netip.Addr]want{}
	for _, s := range a.services.CachedList("", nil) {
		if s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.Annotations[PoolAnnotation] == "" {
			continue
		}
		for _, i := range s.Status.LoadBalancer.Ingress {
			addr, err := netip.ParseAddr(i.IP)
			if err != nil {
				continue
			}
			w := out[addr]
			if s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal && w.near == nil {
				w.near = a.withEndpoints(s)
			}
			out[addr] = w
		}
	}
	return out
}

// withEndpoints returns the nodes that have ready endpoints of a Service; nil
// when none has.
func (a *Announcer) withEndpoints(s *corev1.Service) map[string]bool {
	var out map[string]bool
	for _, slice := range a.slices.ByIndex(serviceIndex, s.Namespace+"/"+s.Name) {
		for _, e := range slice.Endpoints {
			if e.NodeName == nil || e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			if out == nil {
				out = map[string]bool{}
			}
			out[*e.NodeName] = true
		}
	}
	return out
}
