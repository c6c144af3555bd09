// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"os"
	"strconv"
	"time"

	"kaji/internal/netfilter"
)

// Tracking is how long the kernel's connection tracking remembers. What is zero
// stays as it is.
type Tracking struct {
	// TCPEstablished is for idle connections, TCPCloseWait for those whose
	// client has closed and whose server has not.
	TCPEstablished, TCPCloseWait time.Duration
	// UDP is for flows without an answer, UDPStream for those with one.
	UDP, UDPStream time.Duration
	// TCPBeLiberal takes packets outside of the window for the connection's.
	TCPBeLiberal bool
}

// DefaultTracking is upstream's.
func DefaultTracking() Tracking {
	return Tracking{TCPEstablished: 24 * time.Hour, TCPCloseWait: time.Hour}
}

// track tells the kernel. It comes after the rules, which load what tracks.
func (p *Proxy) track() error {
	t := p.c.Tracking
	return netfilter.Within(p.c.NetNS, func() error {
		var errs []error
		set := func(name string, seconds int) {
			if seconds > 0 {
				errs = append(errs, os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_"+name, []byte(strconv.Itoa(seconds)), 0o644))
			}
		}
		set("tcp_timeout_established", int(t.TCPEstablished.Seconds()))
		set("tcp_timeout_close_wait", int(t.TCPCloseWait.Seconds()))
		set("udp_timeout", int(t.UDP.Seconds()))
		set("udp_timeout_stream", int(t.UDPStream.Seconds()))
		if t.TCPBeLiberal {
			set("tcp_be_liberal", 1)
		}
		return errors.Join(errs...)
	})
}
