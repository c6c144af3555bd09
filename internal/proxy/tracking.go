// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
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
	// MaxPerCore is how many connections are remembered at most for each
	// processor, Min how many at least; MaxPerCore zero leaves the limit as it is.
	MaxPerCore, Min int
	// KeepLarger leaves a limit that is larger.
	KeepLarger bool
}

// DefaultTracking is upstream's, on a machine that is not the cluster's alone.
func DefaultTracking() Tracking {
	return Tracking{TCPEstablished: 24 * time.Hour, TCPCloseWait: time.Hour, MaxPerCore: 32 << 10, Min: 128 << 10, KeepLarger: true}
}

// maxTracked bounds what processors alone ask for: the kernel's memory is no
// larger for them.
const maxTracked = 1 << 20

// max is how many connections the kernel is to remember at most; zero leaves it
// as it is.
func (t Tracking) max(processors int) int {
	if t.MaxPerCore <= 0 {
		return 0
	}
	scaled := t.MaxPerCore * processors
	if scaled > maxTracked {
		return maxTracked
	}
	return max(scaled, t.Min)
}

// limit is the machine's: all of its network namespaces share it, and only the
// first of them may write it.
func (t Tracking) limit() error {
	const limit, buckets = "/proc/sys/net/netfilter/nf_conntrack_max", "/sys/module/nf_conntrack/parameters/hashsize"
	want := t.max(runtime.NumCPU())
	if want == 0 {
		return nil
	}
	now, err := readNumber(limit)
	if err != nil || now == want || t.KeepLarger && now > want {
		return err
	}
	if err := os.WriteFile(limit, []byte(strconv.Itoa(want)), 0o644); err != nil {
		return err
	}
	have, err := readNumber(buckets)
	if err != nil || have >= want/4 {
		return err
	}
	return os.WriteFile(buckets, []byte(strconv.Itoa(want/4)), 0o600)
}

func readNumber(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// track tells the kernel. It comes after the rules, which load what tracks.
func (p *Proxy) track() error {
	t := p.c.Tracking
	return netfilter.Within(p.c.NetNS, func() error {
		var errs []error
		if err := t.limit(); err != nil && !errors.Is(err, fs.ErrPermission) {
			errs = append(errs, fmt.Errorf("how many connections are remembered: %w", err))
		}
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
