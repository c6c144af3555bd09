// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/miekg/dns"
)

// HTTP is a load of requests on anything that speaks HTTP: an Ingress, a proxy
// of another make, a Service.
type HTTP struct {
	// URL is asked for; Host replaces its host in the requests when not empty.
	URL, Host string
	Requests  int
	Workers   int
	// Fresh makes a connection for each request.
	Fresh bool
	// Process is the one whose CPU counts.
	Process *Process
}

// Run sends the requests. An answer other than 200 is an error.
func (h HTTP) Run(ctx context.Context, report *Report) error {
	u, err := url.Parse(h.URL)
	if err != nil {
		return err
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%s is no address of HTTP", h.URL)
	}
	// What is asked here is measured, not trusted.
	transport := &http.Transport{MaxIdleConnsPerHost: h.Workers, DisableCompression: true, DisableKeepAlives: h.Fresh,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: h.Host}}
	defer transport.CloseIdleConnections()
	request := func(ctx context.Context, _ int) (int64, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL, nil)
		if err != nil {
			return 0, err
		}
		req.Host = h.Host
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		n, err := io.Copy(io.Discard, resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
		return n, err
	}
	measure(ctx, "", nil, h.Workers, h.Workers*10, request) // connections are made
	res := measure(ctx, "requests", h.Process, h.Workers, h.Requests, request)
	res.Target = u.Host
	report.Add(res)
	return ctx.Err()
}

// DNS is a load of questions on a name server.
type DNS struct {
	// Server is "address:port"; Names are asked for in turn, for addresses.
	Server    string
	Names     []string
	Questions int
	Workers   int
	Process   *Process
}

// Run asks. An answer without a record is an error, as is none within 2 seconds.
func (d DNS) Run(ctx context.Context, report *Report) error {
	if len(d.Names) == 0 {
		return errors.New("there is no name to ask for")
	}
	server := d.Server
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(server, "53")
	}
	conns := make(chan *dns.Conn, d.Workers)
	for range d.Workers {
		conn, err := dns.DialTimeout("udp", server, 2*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		conns <- conn
	}
	client := &dns.Client{Timeout: 2 * time.Second}
	res := measure(ctx, "questions", d.Process, d.Workers, d.Questions, func(ctx context.Context, i int) (int64, error) {
		conn := <-conns
		defer func() { conns <- conn }()
		q := new(dns.Msg).SetQuestion(dns.Fqdn(d.Names[i%len(d.Names)]), dns.TypeA)
		answer, _, err := client.ExchangeWithConnContext(ctx, q, conn)
		if err != nil {
			return 0, err
		}
		if answer.Rcode != dns.RcodeSuccess || len(answer.Answer) == 0 {
			return 0, fmt.Errorf("%s: %s", q.Question[0].Name, dns.RcodeToString[answer.Rcode])
		}
		return int64(answer.Len()), nil
	})
	res.Target = server
	report.Add(res)
	return ctx.Err()
}
