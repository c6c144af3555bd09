// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"kaji/internal/client"
)

// none stands for no answer where a test names response codes.
const none = -1

// listening runs a server at an address of the loopback link.
func listening(t *testing.T) (at string, ip string, api client.Interface) {
	t.Helper()
	probe, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	at = probe.LocalAddr().String()
	probe.Close()
	s, api := serve(t, func(c *Config) { c.Listen = []netip.AddrPort{netip.MustParseAddrPort(at)} })
	ip = create(t, api, service("web", func(*corev1.ServiceSpec) {})).Spec.ClusterIP
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	until(t, "the server listens", func() bool {
		conn, err := net.Dial("tcp", at)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return at, ip, api
}

const web = "web.default.svc.cluster.local."

// packed is a question in its form on the wire.
func packed(t testing.TB, id uint16, change func(*dns.Msg)) []byte {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(web, dns.TypeA)
	q.Id = id
	if change != nil {
		change(q)
	}
	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// about is a question of another kind.
func about(name string, kind, class uint16) func(*dns.Msg) {
	return func(q *dns.Msg) { q.Question[0] = dns.Question{Name: name, Qtype: kind, Qclass: class} }
}

func opcode(n int) func(*dns.Msg) { return func(q *dns.Msg) { q.Opcode = n } }

// crooked makes a packet of a header with counts and the bytes behind it.
func crooked(id uint16, counts [4]uint16, rest ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = binary.BigEndian.AppendUint16(b, 0x0100)
	for _, n := range counts {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	return append(b, rest...)
}

// hostile are packets and how they are answered.
func hostile(t testing.TB, id uint16) map[string]struct {
	packet []byte
	code   int
} {
	type one = struct {
		packet []byte
		code   int
	}
	question := packed(t, id, nil)
	record := append(question[:len(question):len(question)], 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 1) // an A record that is cut off
	binary.BigEndian.PutUint16(record[6:], 1)
	return map[string]one{
		"a name that points to itself":         {crooked(id, [4]uint16{1}, 0xc0, 12, 0, 1, 0, 1), dns.RcodeFormatError},
		"names that point to one another":      {crooked(id, [4]uint16{1}, 0xc0, 14, 0xc0, 12, 0, 1, 0, 1), dns.RcodeFormatError},
		"a name that points behind the packet": {crooked(id, [4]uint16{1}, 0xff, 0xff, 0, 1, 0, 1), dns.RcodeFormatError},
		"a label that is too long":             {crooked(id, [4]uint16{1}, append([]byte{0x7f}, make([]byte, 130)...)...), dns.RcodeFormatError},
		"a name that is too long":              {crooked(id, [4]uint16{1}, append([]byte(strings.Repeat("\x01a", 200)), 0, 0, 1, 0, 1)...), dns.RcodeFormatError},
		"a question that is cut off":           {question[:len(question)-3], dns.RcodeFormatError},
		"a question that is missing":           {crooked(id, [4]uint16{1}), dns.RcodeFormatError},
		"no question":                          {crooked(id, [4]uint16{0}), dns.RcodeFormatError},
		"counts without records":               {crooked(id, [4]uint16{0xffff, 0xffff, 0xffff, 0xffff}), dns.RcodeFormatError},
		"a record that is cut off":             {record, dns.RcodeFormatError},
		"half a header":                        {question[:7], none},
		"one byte":                             {question[:1], none},
		"an answer":                            {packed(t, id, func(q *dns.Msg) { q.Response = true }), none},
		"a status question":                    {packed(t, id, opcode(dns.OpcodeStatus)), dns.RcodeNotImplemented},
		"an update":                            {packed(t, id, opcode(dns.OpcodeUpdate)), dns.RcodeNotImplemented},
		"an unknown operation":                 {packed(t, id, opcode(15)), dns.RcodeNotImplemented},
		"a notification":                       {packed(t, id, opcode(dns.OpcodeNotify)), dns.RcodeNotImplemented},
		"two questions":                        {packed(t, id, func(q *dns.Msg) { q.Question = append(q.Question, q.Question[0]) }), dns.RcodeFormatError},
		"the whole zone":                       {packed(t, id, about("cluster.local.", dns.TypeAXFR, dns.ClassINET)), dns.RcodeRefused},
		"what is new in the zone":              {packed(t, id, about("cluster.local.", dns.TypeIXFR, dns.ClassINET)), dns.RcodeRefused},
		"all records of a name":                {packed(t, id, about(web, dns.TypeANY, dns.ClassINET)), dns.RcodeSuccess},
		"the server's version":                 {packed(t, id, about("version.bind.", dns.TypeTXT, dns.ClassCHAOS)), dns.RcodeRefused},
		"a class that there is not":            {packed(t, id, about(web, dns.TypeA, 4711)), dns.RcodeRefused},
		"a type that there is not":             {packed(t, id, about(web, 4711, dns.ClassINET)), dns.RcodeSuccess},
		"the root":                             {packed(t, id, about(".", dns.TypeNS, dns.ClassINET)), dns.RcodeServerFailure},
		"EDNS of a later version": {packed(t, id, func(q *dns.Msg) {
			q.SetEdns0(1232, false)
			q.IsEdns0().SetVersion(1)
		}), dns.RcodeBadVers},
		"EDNS with an unknown option": {packed(t, id, func(q *dns.Msg) {
			q.SetEdns0(0, true)
			q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65001, Data: make([]byte, 200)}}
		}), dns.RcodeSuccess},
	}
}

// What cannot be understood is refused or left without an answer, and who asks
// something sensible beside it, or after it, is answered.
func TestHostilePackets(t *testing.T) {
	at, ip, _ := listening(t)
	for _, network := range []string{"udp", "tcp"} {
		for name, one := range hostile(t, 1) {
			conn, err := dns.DialTimeout(network, at, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			for _, packet := range [][]byte{one.packet, packed(t, 2, nil)} {
				if _, err := conn.Write(packet); err != nil {
					t.Fatalf("%s by %s: %v", name, network, err)
				}
			}
			got := map[uint16]*dns.Msg{}
			for got[2] == nil || one.code != none && got[1] == nil {
				m, err := conn.ReadMsg()
				if err != nil {
					t.Errorf("%s by %s: %v", name, network, err)
					break
				}
				got[m.Id] = m
			}
			conn.Close()
			if m := got[1]; m != nil && m.Rcode != one.code {
				t.Errorf("%s by %s is answered %s, want %s", name, network, dns.RcodeToString[m.Rcode], dns.RcodeToString[one.code])
			}
			if m := got[2]; m != nil && (len(m.Answer) != 1 || texts(m.Answer)[0] != ip) {
				t.Errorf("after %s by %s: %v", name, network, m)
			}
		}
	}
}

// Nothing that is sent makes the server keep anything, neither floods of packets
// without sense nor connections that say nothing.
func TestHostileFlood(t *testing.T) {
	at, ip, _ := listening(t)
	good := func() error {
		q := new(dns.Msg)
		q.SetQuestion(web, dns.TypeA)
		for _, network := range []string{"udp", "tcp"} {
			var a *dns.Msg
			var err error
			for range 10 { // a datagram may be lost, as resolvers know
				a, _, err = (&dns.Client{Net: network, Timeout: 3 * time.Second}).Exchange(q, at)
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
			}
			if err != nil || len(a.Answer) != 1 || texts(a.Answer)[0] != ip {
				return fmt.Errorf("by %s: %v, %w", network, a, err)
			}
		}
		return nil
	}
	if err := good(); err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	routines, memory := runtime.NumGoroutine(), heap()

	conn, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	random := rand.New(rand.NewPCG(1, 2))
	kinds := hostile(t, 1)
	for i := range 20000 {
		packet := make([]byte, random.IntN(600))
		for j := range packet {
			packet[j] = byte(random.Uint32())
		}
		if i%2 == 0 { // one that begins well
			for _, one := range kinds {
				packet = append([]byte(nil), one.packet...)
				packet[random.IntN(len(packet))] ^= byte(1 << random.IntN(8))
				break
			}
		}
		_, _ = conn.Write(packet) // a refusal of what was sent before is no concern
		if i%5000 == 0 {
			if err := good(); err != nil {
				t.Errorf("amid %d packets: %v", i, err)
			}
		}
	}
	var silent []net.Conn
	for i := range 300 {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, conn)
		// Nothing, half a length, a length without a body, a body that is cut off, no body.
		_, _ = conn.Write([][]byte{nil, {0xff}, {0xff, 0xff}, append([]byte{0, 64}, packed(t, 1, nil)[:20]...), {0, 0}}[i%5])
	}
	if err := good(); err != nil {
		t.Errorf("beside silent connections: %v", err)
	}
	for _, conn := range silent { // the server ends them
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a connection that says nothing stays")
		}
		conn.Close()
	}
	until(t, "all is as before", func() bool { return runtime.NumGoroutine() <= routines && heap() < memory+4<<20 })
	if err := good(); err != nil {
		t.Error(err)
	}
}

// A name with more addresses than a message holds is answered with those that
// fit, by UDP and by TCP.
func TestMoreThanFits(t *testing.T) {
	at, _, api := listening(t)
	create(t, api, service("many", func(s *corev1.ServiceSpec) { s.ClusterIP = corev1.ClusterIPNone }))
	for part := range 6 {
		one := slice("many", discoveryv1.AddressTypeIPv4)
		one.Name = fmt.Sprint("many-", part)
		for i := range 1000 {
			one.Endpoints = append(one.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", part, i/200, i%200+1)}})
		}
		create(t, api, one)
	}
	for _, c := range []struct {
		network     string
		edns        uint16
		least, most int
	}{{"udp", 0, 20, 512}, {"udp", 1232, 60, 1232}, {"udp", 65535, 200, 4096}, {"tcp", 0, 3500, 65535}} {
		q := new(dns.Msg)
		q.SetQuestion("many.default.svc.cluster.local.", dns.TypeA)
		if c.edns > 0 {
			q.SetEdns0(c.edns, false)
		}
		conn, err := dns.DialTimeout(c.network, at, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		conn.UDPSize = 65535
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		if err := conn.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
		b, err := conn.ReadMsgHeader(nil)
		conn.Close()
		if err != nil {
			t.Errorf("by %s with %d: %v", c.network, c.edns, err)
			continue
		}
		a := new(dns.Msg)
		if err := a.Unpack(b); err != nil || !a.Truncated || len(b) > c.most || len(a.Answer) < c.least || (a.IsEdns0() != nil) != (c.edns > 0) {
			t.Errorf("by %s with %d: %d bytes, %d answers, truncated %v, %v, %v", c.network, c.edns, len(b), len(a.Answer), a.Truncated, a.IsEdns0(), err)
		}
	}
}

// What was learned with EDNS is told without it to who does not speak it.
func TestKeptAnswerWithoutEDNS(t *testing.T) {
	at, _ := upstream(t, func(q *dns.Msg) *dns.Msg {
		a := new(dns.Msg)
		a.SetReply(q)
		a.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 7)}}
		if q.IsEdns0() != nil {
			a.SetEdns0(1232, false)
		}
		return a
	})
	s, _ := serve(t, nil)
	if err := s.configure(fmt.Sprintf(".:53 {\n forward . %s\n cache 30\n}\n", at)); err != nil {
		t.Fatal(err)
	}
	for _, edns := range []bool{true, false, true} {
		q := new(dns.Msg)
		q.SetQuestion("example.org.", dns.TypeA)
		if edns {
			q.SetEdns0(1232, false)
		}
		w := &asker{local: &net.UDPAddr{}}
		s.ServeDNS(w, q)
		count := 0
		for _, r := range w.answer.Extra {
			if r.Header().Rrtype == dns.TypeOPT {
				count++
			}
		}
		if want := map[bool]int{true: 1}[edns]; len(w.answer.Answer) != 1 || count != want {
			t.Errorf("asked with EDNS %v: %v", edns, w.answer)
		}
	}
}

// A server that answers another question than the asked one is not believed.
func TestAnswerToAnotherQuestion(t *testing.T) {
	at, _ := upstream(t, func(q *dns.Msg) *dns.Msg {
		a := new(dns.Msg)
		a.SetReply(q)
		a.Question = []dns.Question{{Name: "bank.example.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}
		a.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "bank.example.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 7)}}
		return a
	})
	s, _ := serve(t, nil)
	if err := s.configure(fmt.Sprintf(".:53 {\n forward . %s\n cache 30\n}\n", at)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if a := ask(s, "example.org.", dns.TypeA); a.Rcode != dns.RcodeServerFailure || len(a.Answer) > 0 {
			t.Errorf("it is believed: %v", a)
		}
	}
}

// A failure in the middle of an answer costs that answer.
func TestPanicIsAnswered(t *testing.T) {
	s, _ := serve(t, nil)
	q := new(dns.Msg)
	q.SetQuestion(web, dns.TypeA)
	w := &brittle{asker: asker{local: &net.UDPAddr{}}}
	s.ServeDNS(w, q)
	if w.answer == nil || w.answer.Rcode != dns.RcodeServerFailure || w.answer.Id != q.Id {
		t.Errorf("answered %v", w.answer)
	}
}

// brittle fails at the first answer.
type brittle struct {
	asker
	failed bool
}

func (b *brittle) WriteMsg(m *dns.Msg) error {
	if !b.failed {
		b.failed = true
		panic(io.ErrUnexpectedEOF)
	}
	return b.asker.WriteMsg(m)
}
