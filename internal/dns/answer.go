// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// patience bounds the time one question may take.
	patience = 5 * time.Second
	// maxDatagram bounds an answer by UDP, in bytes.
	maxDatagram = 4096
)

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	begun := time.Now()
	defer func() {
		if failure := recover(); failure != nil { // it costs this answer, not all others
			s.metrics.panics.Inc()
			s.log.Error("answering a question failed", "question", q.Question, "failure", failure, "stack", string(debug.Stack()))
			_ = w.WriteMsg(refuse(q, dns.RcodeServerFailure)) // the asker may be gone
		}
	}()
	if code := refusal(q); code != dns.RcodeSuccess {
		s.reply(w, q, refuse(q, code), begun, ".")
		return
	}
	name := strings.ToLower(dns.Fqdn(q.Question[0].Name))
	b := s.settings.Load().find(name)
	if b == nil {
		s.reply(w, q, refuse(q, dns.RcodeRefused), begun, ".")
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a := s.answer(ctx, b, q, name)
	if b.Log {
		s.log.Info("asked", "name", name, "type", dns.TypeToString[q.Question[0].Qtype], "from", w.RemoteAddr(), "answer", dns.RcodeToString[a.Rcode], "took", time.Since(begun))
	}
	s.reply(w, q, a, begun, b.Zone)
}

// refusal is why a message is not looked into, RcodeSuccess where it is.
func refusal(q *dns.Msg) int {
	switch opt := q.IsEdns0(); {
	case q.Opcode != dns.OpcodeQuery:
		return dns.RcodeNotImplemented
	case q.Response || len(q.Question) != 1:
		return dns.RcodeFormatError
	case opt != nil && opt.Version() != 0:
		return dns.RcodeBadVers
	}
	switch one := q.Question[0]; {
	case one.Qclass != dns.ClassINET, one.Qtype == dns.TypeAXFR, one.Qtype == dns.TypeIXFR:
		return dns.RcodeRefused // nobody gets the whole zone, and there is no other class
	}
	return dns.RcodeSuccess
}

// find returns the block of the longest zone that covers a name.
func (s *settings) find(name string) *block {
	var best *block
	for i := range s.blocks {
		b := &s.blocks[i]
		if dns.IsSubDomain(b.Zone, name) && (best == nil || len(b.Zone) > len(best.Zone)) {
			best = b
		}
	}
	return best
}

func refuse(q *dns.Msg, code int) *dns.Msg {
	a := new(dns.Msg)
	a.SetRcode(q, code)
	return a
}

// answer asks the parts of a block in their order.
func (s *Server) answer(ctx context.Context, b *block, q *dns.Msg, name string) *dns.Msg {
	if a := b.fromHosts(q, name); a != nil {
		return a
	}
	if b.cluster != nil {
		if a := s.fromCluster(ctx, b, q, name); a != nil {
			return a
		}
	}
	if b.upstream == nil {
		return refuse(q, dns.RcodeRefused)
	}
	return b.upstream.Ask(ctx, q)
}

// fromCluster answers about the cluster's names, nil for others.
func (s *Server) fromCluster(ctx context.Context, b *block, q *dns.Msg, name string) *dns.Msg {
	kind := q.Question[0].Qtype
	if address, ok := reversed(name); ok {
		records, known := b.cluster.Reverse(q.Question[0].Name, address)
		if !known {
			if b.upstream != nil && b.Kubernetes.Fallthrough {
				return nil
			}
			return refuse(q, dns.RcodeNameError)
		}
		if kind != dns.TypePTR {
			records = nil
		}
		return positive(q, records, nil)
	}
	if !b.cluster.Covers(name) {
		return nil
	}
	if !s.informers.HasSynced() {
		return refuse(q, dns.RcodeServerFailure)
	}
	found := b.cluster.Lookup(name, kind)
	if !found.Known {
		a := refuse(q, dns.RcodeNameError)
		a.Authoritative, a.Ns = true, []dns.RR{b.cluster.SOA()}
		return a
	}
	keepCase(found.Records, name, q.Question[0].Name)
	rand.Shuffle(len(found.Records), func(i, j int) { found.Records[i], found.Records[j] = found.Records[j], found.Records[i] })
	a := positive(q, found.Records, found.Extra)
	if found.Alias != "" && (kind == dns.TypeA || kind == dns.TypeAAAA) {
		a.Answer = append(a.Answer, s.follow(ctx, q, found.Alias)...)
	}
	if len(a.Answer) == 0 {
		a.Ns = []dns.RR{b.cluster.SOA()}
	}
	return a
}

// follow resolves where an alias leads, for clients that do not themselves.
func (s *Server) follow(ctx context.Context, q *dns.Msg, target string) []dns.RR {
	next := q.Copy()
	next.Question[0].Name = target
	lower := strings.ToLower(target)
	b := s.settings.Load().find(lower)
	switch {
	case b == nil:
		return nil
	case b.cluster != nil && b.cluster.Covers(lower):
		return b.cluster.Lookup(lower, q.Question[0].Qtype).Records
	}
	if b.upstream == nil {
		return nil
	}
	return b.upstream.Ask(ctx, next).Answer
}

// keepCase gives the records the spelling that was asked for, which resolvers
// that mix cases check.
func keepCase(records []dns.RR, name, asked string) {
	for _, r := range records {
		if r.Header().Name == name {
			r.Header().Name = asked
		}
	}
}

func positive(q *dns.Msg, records, extra []dns.RR) *dns.Msg {
	a := new(dns.Msg)
	a.SetReply(q)
	a.Authoritative, a.RecursionAvailable = true, true
	a.Answer, a.Extra = records, extra
	return a
}

// fromHosts answers from the block's own table.
func (b *block) fromHosts(q *dns.Msg, name string) *dns.Msg {
	ips, ok := b.Hosts[name]
	if !ok {
		return nil
	}
	var records []dns.RR
	for _, ip := range ips {
		h := dns.RR_Header{Name: q.Question[0].Name, Class: dns.ClassINET, Ttl: 3600}
		switch kind := q.Question[0].Qtype; {
		case kind == dns.TypeA && ip.Is4():
			h.Rrtype = dns.TypeA
			records = append(records, &dns.A{Hdr: h, A: ip.AsSlice()})
		case kind == dns.TypeAAAA && ip.Is6():
			h.Rrtype = dns.TypeAAAA
			records = append(records, &dns.AAAA{Hdr: h, AAAA: ip.AsSlice()})
		}
	}
	return positive(q, records, nil)
}

// reversed returns the address that a name below in-addr.arpa or ip6.arpa is
// about.
func reversed(name string) (string, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		labels := strings.Split(rest, ".")
		if len(labels) != 4 {
			return "", false
		}
		addr, err := netip.ParseAddr(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
		return addr.String(), err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok || len(rest) != 63 {
		return "", false
	}
	var b strings.Builder
	for i := 62; i >= 0; i -= 2 {
		b.WriteByte(rest[i])
		if i%8 == 0 && i > 0 {
			b.WriteByte(':')
		}
	}
	addr, err := netip.ParseAddr(b.String())
	return addr.String(), err == nil
}

// reply sends an answer in what the asker can take.
func (s *Server) reply(w dns.ResponseWriter, q, a *dns.Msg, begun time.Time, zone string) {
	size := dns.MinMsgSize
	// What others said of EDNS was meant for this server.
	a.Extra = slices.DeleteFunc(a.Extra, func(r dns.RR) bool { return r.Header().Rrtype == dns.TypeOPT })
	if opt := q.IsEdns0(); opt != nil {
		size = max(size, min(int(opt.UDPSize()), maxDatagram))
		a.SetEdns0(maxDatagram, opt.Do())
	} else if a.Rcode > 0xf { // it has no room without
		a.Rcode = dns.RcodeServerFailure
	}
	protocol := "udp"
	if w.LocalAddr().Network() != "udp" {
		protocol, size = "tcp", dns.MaxMsgSize
	}
	a.Truncate(size)
	a.Compress = true
	s.metrics.served(protocol, zone, q, a, time.Since(begun))
	// The asker may be gone; it asks again or it does not.
	_ = w.WriteMsg(a)
}
