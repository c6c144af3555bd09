// SPDX-License-Identifier: Apache-2.0

// Package corefile reads the configuration language of CoreDNS, as far as the
// cluster's name server follows it: blocks of zones with the plug-ins
// kubernetes, forward, cache, hosts and log, and the ports of prometheus, health
// and ready. What only concerns how CoreDNS runs
// (errors, reload, …) is accepted and means nothing here; a
// plug-in that would change answers and is not known is an error.
package corefile

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// limit bounds the size of a Corefile.
const limit = 1 << 20

// Block is what is done below one zone.
type Block struct {
	// Zone is fully qualified, "." for everything.
	Zone string
	// Kubernetes answers the cluster's names, nil for none.
	Kubernetes *Kubernetes
	// Forward answers the rest, nil refuses it.
	Forward *Forward
	// CacheTTL bounds how long answers from elsewhere are kept, zero keeps none.
	CacheTTL time.Duration
	// Hosts are names with fixed addresses, fully qualified and in lower case.
	Hosts map[string][]netip.Addr
	// Log writes a line a question.
	Log bool
	// Ports are those of the plug-ins prometheus, health and ready, by name. Zero
	// is where none is said: health and ready are then answered at prometheus's.
	Ports map[string]uint16
}

// Kubernetes are the settings of the plug-in of that name.
type Kubernetes struct {
	Domain      string
	TTL         uint32
	Pods        bool
	Fallthrough bool
}

// Forward says where questions go: addresses, or a resolv.conf.
type Forward struct{ To []string }

// Default is the Corefile of a new cluster.
func Default(domain string) string {
	return `.:53 {
    errors
    health {
        lameduck 5s
    }
    ready
    kubernetes ` + domain + ` in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
        max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
`
}

// without effect here: how CoreDNS itself runs, or what is always done.
var quiet = []string{"errors", "loop", "reload", "loadbalance", "bufsize", "debug", "pprof", "trace", "minimal", "cancel", "bind"}

// Parse reads a Corefile. Errors name the line.
func Parse(text string) ([]Block, error) {
	if len(text) > limit {
		return nil, fmt.Errorf("the Corefile has %d bytes, more than %d", len(text), limit)
	}
	p := &parser{words: split(text)}
	var out []Block
	for p.more() {
		blocks, err := p.block()
		if err != nil {
			return nil, err
		}
		out = append(out, blocks...)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the Corefile has no block")
	}
	return out, nil
}

// word is a token and its line; a line's end is "\n".
type word struct {
	text string
	line int
}

func split(text string) []word {
	var out []word
	for i, line := range strings.Split(text, "\n") {
		for _, w := range fields(line) {
			out = append(out, word{w, i + 1})
		}
		out = append(out, word{"\n", i + 1})
	}
	return out
}

// fields splits a line at spaces outside of quotes, up to a comment.
func fields(line string) []string {
	var out []string
	var b strings.Builder
	quoted, any := false, false
	flush := func() {
		if any {
			out = append(out, b.String())
		}
		b.Reset()
		any = false
	}
	for _, r := range line {
		switch {
		case r == '"':
			quoted, any = !quoted, true
		case quoted:
			b.WriteRune(r)
		case r == '#' && !any:
			return out
		case r == ' ' || r == '\t' || r == '\r':
			flush()
		default:
			b.WriteRune(r)
			any = true
		}
	}
	flush()
	return out
}

type parser struct {
	words []word
	at    int
}

func (p *parser) more() bool {
	for p.at < len(p.words) && p.words[p.at].text == "\n" {
		p.at++
	}
	return p.at < len(p.words)
}

// line returns the words up to the end of the line and whether a block opens.
func (p *parser) line() (args []string, opens bool, number int) {
	for ; p.at < len(p.words); p.at++ {
		w := p.words[p.at]
		if number == 0 {
			number = w.line
		}
		switch w.text {
		case "\n":
			p.at++
			return args, opens, number
		case "{":
			opens = true
		default:
			args = append(args, w.text)
		}
	}
	return args, opens, number
}

// block reads a block of zones.
func (p *parser) block() ([]Block, error) {
	zones, opens, number := p.line()
	if !opens || len(zones) == 0 {
		return nil, fmt.Errorf("line %d: a block begins with zones and {", number)
	}
	var b Block
	for {
		if !p.more() {
			return nil, fmt.Errorf("line %d: the block is never closed", number)
		}
		args, opens, line := p.line()
		if len(args) == 1 && args[0] == "}" && !opens {
			break
		}
		var body [][]string
		if opens {
			var err error
			if body, err = p.body(line); err != nil {
				return nil, err
			}
		}
		if err := b.plugin(args, body); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
	}
	var out []Block
	for _, z := range zones {
		one := b
		one.Zone = zoneName(z)
		if _, ok := dns.IsDomainName(one.Zone); !ok {
			return nil, fmt.Errorf("line %d: %q is no zone", number, z)
		}
		out = append(out, one)
	}
	return out, nil
}

// zoneName takes the scheme and the port off a zone.
func zoneName(z string) string {
	z = strings.TrimSuffix(strings.TrimPrefix(z, "dns://"), ",")
	if i := strings.LastIndexByte(z, ':'); i >= 0 {
		z = z[:i]
	}
	return dns.Fqdn(strings.ToLower(z))
}

// body reads the lines of a plug-in's own block.
func (p *parser) body(opened int) ([][]string, error) {
	var out [][]string
	for p.more() {
		args, opens, line := p.line()
		switch {
		case opens:
			return nil, fmt.Errorf("line %d: a block within a plug-in's block", line)
		case len(args) == 1 && args[0] == "}":
			return out, nil
		case len(args) > 0 && args[len(args)-1] == "}":
			return append(out, args[:len(args)-1]), nil
		}
		out = append(out, args)
	}
	return nil, fmt.Errorf("line %d: the block is never closed", opened)
}

func (b *Block) plugin(args []string, body [][]string) error {
	if len(args) == 0 {
		return fmt.Errorf("a block without a name")
	}
	name, args := args[0], args[1:]
	switch name {
	case "kubernetes":
		return b.kubernetes(args, body)
	case "forward":
		return b.forward(args)
	case "cache":
		return b.cache(args)
	case "hosts":
		return b.hosts(args, body)
	case "log":
		b.Log = true
		return nil
	case "prometheus", "health", "ready":
		return b.port(name, args)
	}
	if slices.Contains(quiet, name) {
		return nil
	}
	return fmt.Errorf("the plug-in %q is not supported", name)
}

// port reads where a plug-in shows how the server is. Only the port of an
// address counts: the addresses are the server's. CoreDNS's own 8080 and 8181
// are not opened unless they are asked for: the server shares the node's network,
// where programs that listen at all addresses want them.
func (b *Block) port(name string, args []string) error {
	port := map[string]uint16{"prometheus": 9153}[name]
	if len(args) > 0 {
		_, text, err := net.SplitHostPort(args[0])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return fmt.Errorf("%s: %q is no port", name, text)
		}
		port = uint16(n)
	}
	if b.Ports == nil {
		b.Ports = map[string]uint16{}
	}
	b.Ports[name] = port
	return nil
}

func (b *Block) kubernetes(zones []string, body [][]string) error {
	k := &Kubernetes{TTL: 5}
	for _, z := range zones {
		if z = strings.TrimSuffix(strings.ToLower(z), "."); !strings.HasSuffix(z, ".arpa") {
			k.Domain = z
			break
		}
	}
	if k.Domain == "" {
		return fmt.Errorf("kubernetes: name the cluster's domain")
	}
	for _, line := range body {
		switch {
		case line[0] == "ttl" && len(line) == 2:
			ttl, err := strconv.ParseUint(line[1], 10, 16)
			if err != nil || ttl > 3600 {
				return fmt.Errorf("kubernetes: ttl must be in range [0, 3600]: %s", line[1])
			}
			k.TTL = uint32(ttl)
		case line[0] == "pods" && len(line) == 2:
			k.Pods = line[1] != "disabled"
		case line[0] == "fallthrough":
			k.Fallthrough = true
		}
	}
	b.Kubernetes = k
	return nil
}

func (b *Block) forward(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("forward: say from which zone and to where")
	}
	for _, to := range args[1:] {
		to = strings.TrimPrefix(to, "dns://")
		_, noPort := netip.ParseAddr(to)
		_, noAddr := netip.ParseAddrPort(to)
		if noPort != nil && noAddr != nil && !strings.HasPrefix(to, "/") {
			return fmt.Errorf("forward: %q is no address and no file", to)
		}
		if b.Forward == nil {
			b.Forward = &Forward{}
		}
		b.Forward.To = append(b.Forward.To, to)
	}
	return nil
}

func (b *Block) cache(args []string) error {
	b.CacheTTL = time.Hour
	if len(args) == 0 {
		return nil
	}
	ttl, err := strconv.ParseUint(args[0], 10, 31)
	if err != nil {
		return nil // a zone: the time stays the default
	}
	b.CacheTTL = time.Duration(ttl) * time.Second
	return nil
}

func (b *Block) hosts(args []string, body [][]string) error {
	if len(args) > 0 && strings.HasPrefix(args[0], "/") {
		return fmt.Errorf("hosts: files are not supported, write the names here")
	}
	b.Hosts = map[string][]netip.Addr{}
	for _, line := range body {
		addr, err := netip.ParseAddr(line[0])
		if err != nil {
			continue // fallthrough, ttl, no_reverse, …
		}
		for _, name := range line[1:] {
			name = dns.Fqdn(strings.ToLower(name))
			b.Hosts[name] = append(b.Hosts[name], addr)
		}
	}
	return nil
}
