// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// client runs one of the network tools: client wget URL, client dig NAME,
// client nc HOST PORT.
func client(ctx context.Context, s *stdio, args []string) int {
	tools := map[string]program{"wget": wget, "curl": wget, "dig": dig, "nslookup": dig, "nc": nc}
	if len(args) == 0 || tools[args[0]] == nil {
		fmt.Fprintln(s.err, "client: say what to do: wget URL, dig NAME or nc HOST PORT")
		return 2
	}
	return tools[args[0]](ctx, s, args[1:])
}

// wget fetches a URL and writes it to stdout, or with -O to a file.
func wget(ctx context.Context, s *stdio, args []string) int {
	flags := flag.NewFlagSet("wget", flag.ContinueOnError)
	flags.SetOutput(s.err)
	quiet := flags.Bool("q", false, "say nothing")
	output := flags.String("O", "", "file to write, - for stdout")
	long := flags.Int("T", 10, "seconds to wait")
	spider := flags.Bool("spider", false, "only see whether it is there")
	post := flags.String("post-data", "", "body to post")
	header := flags.String("header", "", "a header to send, Name: value")
	flags.Bool("s", false, "accepted for curl's sake")
	var rest []string
	// -qO- is the usual spelling, of which package flag knows nothing.
	for i, a := range args {
		if a == "-qO-" {
			args = slices.Replace(slices.Clone(args), i, i+1, "-q", "-O", "-")
			break
		}
	}
	for len(args) > 0 { // flags may stand behind the URL
		if err := flags.Parse(args); err != nil {
			return 2
		}
		if args = flags.Args(); len(args) > 0 {
			rest, args = append(rest, args[0]), args[1:]
		}
	}
	if len(rest) != 1 {
		fmt.Fprintln(s.err, "wget: one URL is needed")
		return 2
	}
	address := rest[0]
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(*long)*time.Second)
	defer cancel()
	method, body := http.MethodGet, io.Reader(nil)
	if *post != "" {
		method, body = http.MethodPost, strings.NewReader(*post)
	}
	request, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return s.fail("wget", err)
	}
	if name, value, ok := strings.Cut(*header, ":"); ok {
		if request.Header.Set(name, strings.TrimSpace(value)); strings.EqualFold(name, "Host") {
			request.Host = strings.TrimSpace(value)
		}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return s.fail("wget", err)
	}
	defer response.Body.Close()
	if !*quiet {
		fmt.Fprintf(s.err, "%s %s\n", response.Proto, response.Status)
	}
	to := s.out
	if *output != "" && *output != "-" && !*spider {
		opened, err := os.Create(s.path(*output))
		if err != nil {
			return s.fail("wget", err)
		}
		defer opened.Close()
		to = opened
	}
	if !*spider {
		if _, err := io.Copy(to, response.Body); err != nil {
			return s.fail("wget", err)
		}
	}
	if response.StatusCode >= 400 {
		fmt.Fprintf(s.err, "wget: server returned error: %s %s\n", response.Proto, response.Status)
		return 1
	}
	return 0
}

// dig looks a name or an address up: dig NAME [A|AAAA|SRV|TXT|CNAME|PTR|MX].
func dig(ctx context.Context, s *stdio, args []string) int {
	kind, resolver, names := "A", net.DefaultResolver, []string{}
	for _, a := range args {
		switch upper := strings.ToUpper(a); {
		case strings.HasPrefix(a, "@"):
			server := net.JoinHostPort(strings.TrimPrefix(a, "@"), "53")
			resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, server)
			}}
		case upper == "A" || upper == "AAAA" || upper == "SRV" || upper == "TXT" || upper == "CNAME" || upper == "PTR" || upper == "MX":
			kind = upper
		case !strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "+"):
			names = append(names, a)
		}
	}
	if len(names) == 0 {
		fmt.Fprintln(s.err, "dig: a name is needed")
		return 2
	}
	if net.ParseIP(names[0]) != nil {
		kind = "PTR"
	}
	answers, err := lookup(ctx, resolver, kind, names[0])
	if err != nil {
		return s.fail("dig", err)
	}
	for _, a := range answers {
		fmt.Fprintln(s.out, a)
	}
	return 0
}

func lookup(ctx context.Context, r *net.Resolver, kind, name string) (out []string, err error) {
	switch kind {
	case "SRV":
		var all []*net.SRV
		_, all, err = r.LookupSRV(ctx, "", "", name)
		for _, a := range all {
			out = append(out, fmt.Sprintf("%d %d %d %s", a.Priority, a.Weight, a.Port, a.Target))
		}
	case "TXT":
		return r.LookupTXT(ctx, name)
	case "PTR":
		return r.LookupAddr(ctx, name)
	case "CNAME":
		var one string
		one, err = r.LookupCNAME(ctx, name)
		out = []string{one}
	case "MX":
		var all []*net.MX
		all, err = r.LookupMX(ctx, name)
		for _, a := range all {
			out = append(out, fmt.Sprintf("%d %s", a.Pref, a.Host))
		}
	default:
		network := map[string]string{"A": "ip4", "AAAA": "ip6"}[kind]
		var all []net.IP
		all, err = r.LookupIP(ctx, network, name)
		for _, a := range all {
			out = append(out, a.String())
		}
	}
	return out, err
}

// nc connects stdin and stdout with a host's port: nc [-u] [-z] [-w seconds]
// HOST PORT; with -l it waits for one connection.
func nc(ctx context.Context, s *stdio, args []string) int {
	flags := flag.NewFlagSet("nc", flag.ContinueOnError)
	flags.SetOutput(s.err)
	udp := flags.Bool("u", false, "UDP")
	zero := flags.Bool("z", false, "only see whether the port is open")
	listen := flags.Bool("l", false, "listen")
	long := flags.Int("w", 10, "seconds to wait for the connection")
	flags.Bool("v", false, "accepted for nc's sake")
	if flags.Parse(args) != nil {
		return 2
	}
	network := "tcp"
	if *udp {
		network = "udp"
	}
	var conn net.Conn
	var err error
	if *listen {
		var l net.Listener
		if l, err = net.Listen(network, ":"+flags.Arg(flags.NArg()-1)); err == nil {
			defer l.Close()
			conn, err = l.Accept()
		}
	} else {
		dialer := net.Dialer{Timeout: time.Duration(*long) * time.Second}
		conn, err = dialer.DialContext(ctx, network, net.JoinHostPort(flags.Arg(0), flags.Arg(1)))
	}
	if err != nil {
		return s.fail("nc", err)
	}
	defer conn.Close()
	if *zero {
		return 0
	}
	go func() {
		_, _ = io.Copy(conn, s.in)
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	}()
	if _, err := io.Copy(s.out, conn); err != nil {
		return s.fail("nc", err)
	}
	return 0
}
