// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// capacity bounds the answers kept.
const capacity = 10000

// cache keeps answers until the shortest of their records ends, at most for a
// given time.
type cache struct {
	most, negative time.Duration

	mu   sync.Mutex
	kept map[question]kept
}

type question struct {
	name        string
	kind, class uint16
	secure      bool
}

type kept struct {
	answer *dns.Msg
	since  time.Time
	until  time.Time
}

func newCache(most, negative time.Duration) *cache {
	return &cache{most: most, negative: negative, kept: map[question]kept{}}
}

func keyOf(q *dns.Msg) question {
	opt := q.IsEdns0()
	one := q.Question[0]
	return question{strings.ToLower(one.Name), one.Qtype, one.Qclass, opt != nil && opt.Do()}
}

// get returns a copy of a kept answer with the time that is left to it.
func (c *cache) get(q *dns.Msg, now time.Time) *dns.Msg {
	key := keyOf(q)
	c.mu.Lock()
	k, ok := c.kept[key]
	if ok && !now.Before(k.until) {
		delete(c.kept, key)
		ok = false
	}
	c.mu.Unlock()
	if !ok {
		return nil
	}
	a := k.answer.Copy()
	a.Id, a.Question = q.Id, q.Question
	age := uint32(now.Sub(k.since).Seconds())
	for _, part := range [][]dns.RR{a.Answer, a.Ns, a.Extra} {
		for _, r := range part {
			if h := r.Header(); h.Rrtype != dns.TypeOPT {
				h.Ttl -= min(age, h.Ttl)
			}
		}
	}
	return a
}

// put keeps an answer that may be kept.
func (c *cache) put(q, a *dns.Msg, now time.Time) {
	if a.Truncated || a.Rcode != dns.RcodeSuccess && a.Rcode != dns.RcodeNameError {
		return
	}
	life := c.most
	if a.Rcode == dns.RcodeNameError || len(a.Answer) == 0 {
		life = c.negative
		if !hasSOA(a) {
			return // nothing says for how long the absence holds
		}
	}
	for _, part := range [][]dns.RR{a.Answer, a.Ns} {
		for _, r := range part {
			life = min(life, time.Duration(r.Header().Ttl)*time.Second)
		}
	}
	if life <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) >= capacity {
		c.shrink(now)
	}
	c.kept[keyOf(q)] = kept{a.Copy(), now, now.Add(life)}
}

func hasSOA(a *dns.Msg) bool {
	for _, r := range a.Ns {
		if r.Header().Rrtype == dns.TypeSOA {
			return true
		}
	}
	return false
}

// shrink drops what has ended, and a tenth of the rest if that is not enough.
func (c *cache) shrink(now time.Time) {
	for key, k := range c.kept {
		if !now.Before(k.until) {
			delete(c.kept, key)
		}
	}
	for key := range c.kept {
		if len(c.kept) < capacity*9/10 {
			return
		}
		delete(c.kept, key)
	}
}
