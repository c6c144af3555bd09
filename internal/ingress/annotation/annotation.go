// SPDX-License-Identifier: Apache-2.0

// Package annotation reads the settings that annotations give an Ingress: the
// common ones of ingress-nginx, under its prefix or under kaji.dev, which wins.
// Package route calls it.
//
// An annotation that protects something is never dropped: when it is unknown
// here or wrong, Settings.Refused says why, and nothing is served.
package annotation

import (
	"net/netip"
	"regexp"
	"time"
)

// The prefixes of the annotations, the stronger first.
const (
	Own   = "kaji.dev/"
	Nginx = "nginx.ingress.kubernetes.io/"
)

// Protocol is what a backend speaks.
type Protocol string

// The protocols, named as the annotation backend-protocol names them.
const (
	HTTP  Protocol = "HTTP"
	HTTPS Protocol = "HTTPS"
	GRPC  Protocol = "GRPC"
	GRPCS Protocol = "GRPCS"
)

// Settings are what the annotations of one Ingress say.
type Settings struct {
	// RewriteTarget replaces the whole path; $1 stands for the first group.
	RewriteTarget string
	// UseRegex says that paths are regular expressions, anchored at their start.
	UseRegex bool
	// AppRoot is where requests for "/" are sent.
	AppRoot string
	// SSLRedirect sends clients of hosts with a certificate to HTTPS,
	// ForceSSLRedirect those of all hosts.
	SSLRedirect, ForceSSLRedirect bool
	// Redirect answers everything with RedirectCode and this address.
	Redirect     string
	RedirectCode int
	// BodySize bounds a request's body in bytes; zero is no bound.
	BodySize int64
	// ConnectTimeout, SendTimeout and ReadTimeout bound the connection to a
	// backend, the pauses in the request and those in the answer.
	ConnectTimeout, SendTimeout, ReadTimeout time.Duration
	// Affinity keeps a client at one endpoint, by a cookie.
	Affinity *Cookie
	// Auth asks for a name and a password, External another server.
	Auth     *Basic
	External *External
	// Rate is how many requests a second one client address may make; zero is
	// no bound. Burst may come at once.
	Rate  float64
	Burst int
	// Connections is how many requests of one client address may be under way;
	// zero is no bound. Unlimited are the clients that neither bound counts for.
	Connections int
	Unlimited   []netip.Prefix
	// Allow, unless empty, are the clients that are let in; Deny those that are not.
	Allow, Deny []netip.Prefix
	Protocol    Protocol
	// Host replaces the Host header towards the backend.
	Host string
	// Prefix is sent as X-Forwarded-Prefix unless it is empty.
	Prefix string
	CORS   *CORS
	// Aliases are more hosts with the rules of the first.
	Aliases []string
	// Substitute is a Service of the namespace that answers where the backend
	// has no endpoints.
	Substitute string
	// Passthrough leaves TLS to the backend.
	Passthrough bool
	// Canary makes the Ingress one that takes some requests of another.
	Canary *Canary
	// Refused says why the Ingress must not be served at all.
	Refused string
}

// External is a server that is asked about each request.
type External struct {
	// URL is asked, by Method; Signin is where who is not let in is sent, unless
	// it is empty. Both may contain nginx's variables, as Expand replaces them.
	URL, Method, Signin string
	// Parameter of Signin is where to return to.
	Parameter string
	// Headers of its answer go to the backend.
	Headers []string
}

// Canary says which requests an Ingress takes from another: those with the
// header, else those with the cookie, else a share by chance.
type Canary struct {
	Header, Value, Cookie string
	Pattern               *regexp.Regexp
	Weight, Total         int
}

// Cookie describes the cookie of an affinity.
type Cookie struct {
	Name     string
	Path     string
	SameSite string
	// MaxAge is in seconds; zero lasts for the browser's session.
	MaxAge int
	Secure bool
}

// Basic is HTTP basic authentication.
type Basic struct {
	// Secret is the name of a Secret in the Ingress's namespace.
	Secret string
	// Map says that the Secret's keys are the names; otherwise its key "auth"
	// is an htpasswd file.
	Map   bool
	Realm string
}

// CORS are the headers that let pages of other origins ask.
type CORS struct {
	Origins                  []string
	Methods, Headers, Expose string
	Credentials              bool
	MaxAge                   int
	// Named says that wildcards are answered by what was asked for: browsers do
	// not take "*" for an answer to a page that sends credentials.
	Named bool
}
