// SPDX-License-Identifier: Apache-2.0

// Package forward asks other name servers and keeps their answers for a while.
// Package dns uses it for names that are not the cluster's. Several servers are
// tried one after the other; an answer too long for UDP is fetched by TCP.
package forward

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// tryTime bounds the wait for one server.
	tryTime = 2 * time.Second
	// fileTime is how long the servers of a file are believed without a look.
	fileTime = 5 * time.Second
	// atOnce bounds the questions under way.
	atOnce = 1000
)

// Config says whom to ask.
type Config struct {
	// To are addresses, with or without a port, or the path of a resolv.conf.
	To []string
	// Resolv stands for "/etc/resolv.conf" among To.
	Resolv string
	// Own are the addresses this server answers at, never asked: that would
	// be a loop.
	Own []netip.AddrPort
	// TTL and NegativeTTL bound how long answers are kept; zero keeps none.
	TTL, NegativeTTL time.Duration
	Logger           *slog.Logger
}

// Forwarder asks. It is safe for concurrent use.
type Forwarder struct {
	cfg   Config
	cache *cache
	slots chan struct{}

	mu     sync.Mutex
	found  []netip.AddrPort
	looked time.Time
}

// New returns a forwarder.
func New(cfg Config) (*Forwarder, error) {
	f := &Forwarder{cfg: cfg, slots: make(chan struct{}, atOnce)}
	if cfg.TTL > 0 {
		f.cache = newCache(cfg.TTL, cfg.NegativeTTL)
	}
	return f, nil
}

// Ask answers a question; it always returns a message.
func (f *Forwarder) Ask(ctx context.Context, q *dns.Msg) *dns.Msg {
	if f.cache != nil {
		if a := f.cache.get(q, time.Now()); a != nil {
			return a
		}
	}
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		return failure(q, dns.RcodeRefused)
	}
	servers := f.servers(time.Now())
	for _, at := range servers {
		a, err := exchange(ctx, q, at)
		if err != nil || a.Rcode == dns.RcodeServerFailure && at != servers[len(servers)-1] {
			continue
		}
		a.Id, a.Question = q.Id, q.Question
		if f.cache != nil {
			f.cache.put(q, a, time.Now())
		}
		return a
	}
	return failure(q, dns.RcodeServerFailure)
}

func failure(q *dns.Msg, code int) *dns.Msg {
	a := new(dns.Msg)
	a.SetRcode(q, code)
	a.RecursionAvailable = true
	return a
}

// exchange asks one server, with an identity of its own so that answers
// cannot be guessed from the asker's.
func exchange(ctx context.Context, q *dns.Msg, at netip.AddrPort) (*dns.Msg, error) {
	ask := q.Copy()
	ask.Id = dns.Id()
	ask.RecursionDesired = true
	c := &dns.Client{Net: "udp", Timeout: tryTime, UDPSize: 4096}
	a, _, err := c.ExchangeContext(ctx, ask, at.String())
	if err == nil && a.Truncated {
		c.Net = "tcp"
		a, _, err = c.ExchangeContext(ctx, ask, at.String())
	}
	if err == nil && !answers(ask, a) {
		return nil, errOther
	}
	return a, err
}

var errOther = errors.New("the server answers another question")

// answers says whether a message is the answer to a question. One that refuses
// may leave the question out.
func answers(q, a *dns.Msg) bool {
	if !a.Response || a.Opcode != q.Opcode {
		return false
	}
	if len(a.Question) == 0 {
		return a.Rcode != dns.RcodeSuccess && len(a.Answer)+len(a.Ns) == 0
	}
	asked, told := q.Question[0], a.Question[0]
	return len(a.Question) == 1 && told.Qtype == asked.Qtype && told.Qclass == asked.Qclass && strings.EqualFold(told.Name, asked.Name)
}

// servers returns whom to ask, in an order that spreads the load.
func (f *Forwarder) servers(now time.Time) []netip.AddrPort {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.looked.IsZero() || now.Sub(f.looked) > fileTime {
		f.found, f.looked = f.read(), now
	}
	out := slices.Clone(f.found)
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func (f *Forwarder) read() []netip.AddrPort {
	var out []netip.AddrPort
	add := func(text string) {
		at, err := netip.ParseAddrPort(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return
			}
			at = netip.AddrPortFrom(addr, 53)
		}
		if !slices.Contains(f.cfg.Own, at) && !slices.Contains(out, at) {
			out = append(out, at)
		}
	}
	for _, to := range f.cfg.To {
		if !strings.HasPrefix(to, "/") {
			add(to)
			continue
		}
		if to == "/etc/resolv.conf" && f.cfg.Resolv != "" {
			to = f.cfg.Resolv
		}
		for _, server := range nameservers(to) {
			add(server)
		}
	}
	return out
}

// nameservers reads a resolv.conf; one that cannot be read names nobody.
func nameservers(path string) []string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var out []string
	for _, line := range strings.Split(string(data), "\n") {
		words := strings.Fields(line)
		if len(words) >= 2 && words[0] == "nameserver" && net.ParseIP(strings.Split(words[1], "%")[0]) != nil {
			out = append(out, words[1])
		}
	}
	return out
}
