// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
)

// clients bounds how many addresses a Limiter remembers.
const clients = 65536

// Limiter counts the requests of each client of each Ingress. The zero value is
// ready. It is safe for concurrent use.
type Limiter struct {
	mu      sync.Mutex
	buckets map[client]*rate.Limiter
}

type client struct {
	ingress types.UID
	addr    netip.Addr
}

// Allow says whether the client may make one more request now.
func (l *Limiter) Allow(ingress types.UID, addr netip.Addr, perSecond float64, burst int) bool {
	key := keyOf(ingress, addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[key]
	if b == nil {
		// Forgetting all now and then lets a few more in, and needs no clock.
		if l.buckets == nil || len(l.buckets) >= clients {
			l.buckets = map[client]*rate.Limiter{}
		}
		b = rate.NewLimiter(rate.Limit(perSecond), burst)
		l.buckets[key] = b
	}
	if b.Limit() != rate.Limit(perSecond) || b.Burst() != burst {
		b.SetLimit(rate.Limit(perSecond))
		b.SetBurst(burst)
	}
	return b.Allow()
}
