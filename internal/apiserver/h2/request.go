// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
)

// request makes the request of a head. An error resets the stream.
func (c *conn) request(st *stream, f *http2.MetaHeadersFrame) (*http.Request, error) {
	malformed := http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	method, path, scheme := f.PseudoValue("method"), f.PseudoValue("path"), f.PseudoValue("scheme")
	if method == "" || f.PseudoValue("protocol") != "" {
		return nil, malformed
	}
	h := make(http.Header, len(f.Fields))
	for _, field := range f.RegularFields() {
		name := c.canonicalName(field.Name)
		h[name] = append(h[name], field.Value)
	}
	if cookies := h["Cookie"]; len(cookies) > 1 {
		h["Cookie"] = []string{strings.Join(cookies, "; ")}
	}
	host, ok := authority(f.PseudoValue("authority"), h)
	if !ok {
		return nil, malformed
	}
	r := &http.Request{
		Method: method, Proto: "HTTP/2.0", ProtoMajor: 2, Header: h, Host: host,
		RemoteAddr: c.remote, TLS: c.tls, RequestURI: path, Body: http.NoBody,
	}
	switch {
	case method == http.MethodConnect:
		if path != "" || scheme != "" || host == "" {
			return nil, malformed
		}
		r.URL, r.RequestURI = &url.URL{Host: host}, host
	case scheme != "https" && scheme != "http", path == "", path[0] != '/' && path != "*":
		return nil, malformed
	default:
		var err error
		if r.URL, err = url.ParseRequestURI(path); err != nil {
			return nil, malformed
		}
	}
	return r, withBody(st, r)
}

// authority returns the host that is asked for, which a header may name too.
func authority(host string, h http.Header) (string, bool) {
	named := h["Host"]
	delete(h, "Host")
	switch {
	case len(named) > 1, len(named) == 1 && host != "" && named[0] != host:
		return "", false
	case len(named) == 1:
		host = named[0]
	}
	return host, !strings.Contains(host, "@") && (host == "" || httpguts.ValidHostHeader(host))
}

// withBody gives a request its body and what its head says of it.
func withBody(st *stream, r *http.Request) error {
	for _, names := range r.Header["Trailer"] {
		for name := range strings.SplitSeq(names, ",") {
			switch name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name {
			case "Transfer-Encoding", "Trailer", "Content-Length", "":
			default:
				if r.Trailer == nil {
					r.Trailer = http.Header{}
				}
				r.Trailer[name] = nil
			}
		}
	}
	delete(r.Header, "Trailer")
	st.trailer = r.Trailer
	b := &body{st: st}
	if httpguts.HeaderValuesContainsToken(r.Header["Expect"], "100-continue") {
		b.expected = true
		delete(r.Header, "Expect")
	}
	length := int64(-1)
	if declared, ok := r.Header["Content-Length"]; ok {
		n, err := strconv.ParseUint(declared[0], 10, 63)
		if err != nil || len(declared) > 1 || st.ended && n > 0 {
			return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
		}
		length = int64(n)
	}
	if st.ended {
		return nil
	}
	r.ContentLength, r.Body = length, b
	return nil
}

// forbidden names a header that has no place in HTTP/2, if there is one.
func forbidden(h http.Header) string {
	for _, name := range []string{"Connection", "Proxy-Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade"} {
		if _, ok := h[name]; ok {
			return name
		}
	}
	if te := h["Te"]; len(te) > 1 || len(te) == 1 && te[0] != "trailers" && te[0] != "" {
		return "Te"
	}
	return ""
}

// maxCanonical bounds the header names that a connection remembers.
const maxCanonical = 64

// canonicalName spells a header's name as Go does.
func (c *conn) canonicalName(lower string) string {
	if name, ok := c.canonical[lower]; ok {
		return name
	}
	name := http.CanonicalHeaderKey(lower)
	if len(c.canonical) < maxCanonical && len(lower) < maxCanonical {
		if c.canonical == nil {
			c.canonical = map[string]string{}
		}
		c.canonical[lower] = name
	}
	return name
}
