// SPDX-License-Identifier: Apache-2.0

package annotation

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What holds where nothing is said, as ingress-nginx has it.
const (
	connectTimeout  = 5 * time.Second
	readTimeout     = time.Minute
	burstMultiplier = 5
	cookieName      = "INGRESSCOOKIE"
	corsMethods     = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
	corsHeaders     = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
	corsMaxAge      = 1728000
)

// protective are annotations of ingress-nginx that guard a backend in a way
// that does not exist here.
var protective = []string{"auth-tls-secret", "auth-snippet", "enable-global-auth", "enable-modsecurity", "enable-owasp-core-rules", "modsecurity-snippet", "global-rate-limit", "satisfy"}

// idle are annotations of ingress-nginx that tune what works by itself here, or
// says what is so anyway.
var idle = []string{"proxy-buffering", "proxy-buffer-size", "proxy-buffers-number", "proxy-busy-buffers-size", "proxy-max-temp-file-size", "proxy-request-buffering",
	"proxy-http-version", "proxy-next-upstream", "proxy-next-upstream-timeout", "proxy-next-upstream-tries", "client-body-buffer-size", "connection-proxy-header",
	"enable-access-log", "enable-rewrite-log", "enable-opentelemetry", "enable-opentracing", "http2-push-preload", "load-balance", "preserve-trailing-slash",
	"ssl-ciphers", "ssl-prefer-server-ciphers", "affinity-mode", "affinity-canary-behavior", "session-cookie-hash", "session-cookie-change-on-failure",
	"session-cookie-conditional-samesite-none", "auth-keepalive", "auth-cache-duration", "auth-always-set-cookie", "websocket-services", "service-upstream"}

// Parse reads the annotations of an Ingress. The problems are for its owner:
// what they name has its default, or Refused is set.
func Parse(annotations map[string]string) (*Settings, []string) {
	p := &parser{all: annotations, asked: map[string]bool{}}
	s := &Settings{}
	p.paths(s)
	p.redirects(s)
	p.bounds(s)
	p.guards(s)
	p.towards(s)
	p.cors(s)
	p.external(s)
	p.canary(s)
	p.unknown()
	if len(p.refused) > 0 {
		s.Refused = strings.Join(p.refused, "; ")
	}
	return s, append(p.refused, p.problems...)
}

type parser struct {
	all map[string]string
	// asked are the annotations that have a meaning here.
	asked             map[string]bool
	problems, refused []string
}

func (p *parser) value(name string) (string, bool) {
	p.asked[name] = true
	v, ok := p.all[Own+name]
	if !ok {
		v, ok = p.all[Nginx+name]
	}
	return strings.TrimSpace(v), ok
}

func (p *parser) problem(format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

func (p *parser) refuse(format string, args ...any) {
	p.refused = append(p.refused, fmt.Sprintf(format, args...))
}

func (p *parser) text(name, standard string) string {
	if v, _ := p.value(name); v != "" {
		return v
	}
	return standard
}

func (p *parser) bool(name string, standard bool) bool {
	v, ok := p.value(name)
	if !ok {
		return standard
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		p.problem("annotation %s: %q is neither true nor false", name, v)
		return standard
	}
	return b
}

func (p *parser) number(name string, standard, highest int) int {
	v, ok := p.value(name)
	if !ok {
		return standard
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > highest {
		p.problem("annotation %s: %q is not a number from 0 to %d", name, v, highest)
		return standard
	}
	return n
}

func (p *parser) paths(s *Settings) {
	s.RewriteTarget = p.text("rewrite-target", "")
	s.UseRegex = p.bool("use-regex", false) || s.RewriteTarget != ""
	if s.RewriteTarget != "" && !strings.HasPrefix(s.RewriteTarget, "/") {
		s.RewriteTarget = "/" + s.RewriteTarget
	}
	s.AppRoot = p.text("app-root", "")
	if s.AppRoot != "" && !strings.HasPrefix(s.AppRoot, "/") {
		p.problem("annotation app-root: %q does not start with a slash", s.AppRoot)
		s.AppRoot = ""
	}
}

func (p *parser) redirects(s *Settings) {
	s.SSLRedirect = p.bool("ssl-redirect", true)
	s.ForceSSLRedirect = p.bool("force-ssl-redirect", false)
	for _, one := range []struct {
		name string
		code int
	}{{"temporal-redirect", 302}, {"permanent-redirect", 301}} {
		p.asked[one.name+"-code"] = true
		to := p.text(one.name, "")
		if to == "" {
			continue
		}
		if _, err := url.Parse(to); err != nil || strings.ContainsAny(to, "\r\n") {
			p.problem("annotation %s: %q is not an address", one.name, to)
			continue
		}
		code := p.number(one.name+"-code", one.code, 308)
		if code < 300 {
			code = one.code
		}
		if s.Redirect == "" {
			s.Redirect, s.RedirectCode = to, code
		}
	}
}

func (p *parser) bounds(s *Settings) {
	const longest = 7 * 24 * 3600
	s.ConnectTimeout, s.SendTimeout, s.ReadTimeout = connectTimeout, readTimeout, readTimeout
	if n := p.number("proxy-connect-timeout", 0, longest); n > 0 {
		s.ConnectTimeout = time.Duration(n) * time.Second
	}
	if n := p.number("proxy-read-timeout", 0, longest); n > 0 {
		s.ReadTimeout = time.Duration(n) * time.Second
	}
	if n := p.number("proxy-send-timeout", 0, longest); n > 0 {
		s.SendTimeout = time.Duration(n) * time.Second
	}
	if v, ok := p.value("proxy-body-size"); ok {
		size, err := parseSize(v)
		if err != nil {
			p.problem("annotation proxy-body-size: %v", err)
		}
		s.BodySize = size
	}
}

// parseSize reads a size as nginx writes it: 8m, 100k, 1g, or bytes.
func parseSize(v string) (int64, error) {
	unit := int64(1)
	digits := strings.ToLower(strings.TrimSuffix(strings.ToLower(v), "b"))
	for suffix, factor := range map[string]int64{"k": 1 << 10, "m": 1 << 20, "g": 1 << 30} {
		if rest, ok := strings.CutSuffix(digits, suffix); ok {
			digits, unit = rest, factor
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return 0, fmt.Errorf("%q is not a size such as 8m", v)
	}
	return n * unit, nil
}

func (p *parser) guards(s *Settings) {
	for _, name := range protective {
		if v, _ := p.value(name); v != "" && v != "false" && v != "off" {
			p.refuse("annotation %s is not supported, and the Ingress is not served without the protection it asks for", name)
		}
	}
	s.Allow = append(p.prefixes("whitelist-source-range"), p.prefixes("allowlist-source-range")...)
	s.Deny = p.prefixes("denylist-source-range")
	p.rate(s)
	for _, name := range []string{"auth-secret", "auth-secret-type", "auth-realm"} {
		p.asked[name] = true
	}
	switch kind := p.text("auth-type", ""); kind {
	case "":
		return
	case "basic":
	default:
		p.refuse("annotation auth-type: %q is not supported", kind)
		return
	}
	name := p.text("auth-secret", "")
	if name == "" || strings.Contains(name, "/") {
		p.refuse("annotation auth-secret: %q is not the name of a Secret in the Ingress's namespace", name)
		return
	}
	kind := p.text("auth-secret-type", "auth-file")
	if kind != "auth-file" && kind != "auth-map" {
		p.refuse("annotation auth-secret-type: %q is neither auth-file nor auth-map", kind)
		return
	}
	s.Auth = &Basic{Secret: name, Map: kind == "auth-map", Realm: strings.Map(printable, p.text("auth-realm", "Authentication Required"))}
}

// printable drops what must not stand in a quoted string of a header.
func printable(r rune) rune {
	if r < ' ' || r > '~' || r == '"' || r == '\\' {
		return -1
	}
	return r
}

func (p *parser) rate(s *Settings) {
	const highest = 1_000_000
	if n := p.number("limit-rpm", 0, highest); n > 0 {
		s.Rate, s.Burst = float64(n)/60, n
	}
	if n := p.number("limit-rps", 0, highest); n > 0 {
		s.Rate, s.Burst = float64(n), n
	}
	s.Burst *= max(1, p.number("limit-burst-multiplier", burstMultiplier, 1000))
	s.Connections = p.number("limit-connections", 0, highest)
	s.Unlimited = append(p.prefixes("limit-whitelist"), p.prefixes("limit-allowlist")...)
}

func (p *parser) prefixes(name string) []netip.Prefix {
	v, ok := p.value(name)
	if !ok {
		return nil
	}
	var out []netip.Prefix
	for field := range strings.SplitSeq(v, ",") {
		field = strings.TrimSpace(field)
		if field == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(field)
		if err != nil {
			addr, bad := netip.ParseAddr(field)
			if bad != nil {
				p.refuse("annotation %s: %q is not an address or range", name, field)
				continue
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		out = append(out, prefix.Masked())
	}
	return out
}

func (p *parser) towards(s *Settings) {
	s.Protocol = HTTP
	if v := Protocol(strings.ToUpper(p.text("backend-protocol", "HTTP"))); slices.Contains([]Protocol{HTTP, HTTPS, GRPC, GRPCS}, v) {
		s.Protocol = v
	} else if v != "AUTO_HTTP" {
		p.problem("annotation backend-protocol: %q is not supported, HTTP is spoken", v)
	}
	s.Host, s.Prefix = p.text("upstream-vhost", ""), p.text("x-forwarded-prefix", "")
	for _, v := range []*string{&s.Host, &s.Prefix} {
		if strings.ContainsFunc(*v, func(r rune) bool { return r <= ' ' || r > '~' }) {
			p.problem("annotations upstream-vhost and x-forwarded-prefix: %q cannot stand in a header", *v)
			*v = ""
		}
	}
	s.Substitute, s.Passthrough = p.text("default-backend", ""), p.bool("ssl-passthrough", false)
	for alias := range strings.SplitSeq(p.text("server-alias", ""), ",") {
		if alias = strings.TrimSpace(alias); alias != "" && !strings.HasPrefix(alias, "~") {
			s.Aliases = append(s.Aliases, alias)
		} else if alias != "" {
			p.problem("annotation server-alias: patterns such as %q are not supported", alias)
		}
	}
	p.affinity(s)
}

func (p *parser) affinity(s *Settings) {
	for _, name := range []string{"session-cookie-name", "session-cookie-path", "session-cookie-samesite", "session-cookie-secure", "session-cookie-max-age", "session-cookie-expires"} {
		p.asked[name] = true
	}
	switch kind := p.text("affinity", ""); kind {
	case "":
	case "cookie":
		s.Affinity = &Cookie{Name: p.text("session-cookie-name", cookieName), Path: p.text("session-cookie-path", ""),
			SameSite: p.text("session-cookie-samesite", ""), Secure: p.bool("session-cookie-secure", false),
			MaxAge: p.number("session-cookie-max-age", p.number("session-cookie-expires", 0, 1<<31-1), 1<<31-1)}
	default:
		p.problem("annotation affinity: %q is not supported", kind)
	}
}

func (p *parser) cors(s *Settings) {
	for _, name := range []string{"cors-allow-methods", "cors-allow-headers", "cors-expose-headers", "cors-allow-credentials", "cors-max-age", "cors-allow-origin"} {
		p.asked[name] = true
	}
	if !p.bool("enable-cors", false) {
		return
	}
	s.CORS = &CORS{Methods: p.text("cors-allow-methods", corsMethods), Headers: p.text("cors-allow-headers", corsHeaders),
		Expose: p.text("cors-expose-headers", ""), Credentials: p.bool("cors-allow-credentials", true), MaxAge: p.number("cors-max-age", corsMaxAge, 1<<31-1)}
	for origin := range strings.SplitSeq(p.text("cors-allow-origin", "*"), ",") {
		s.CORS.Origins = append(s.CORS.Origins, strings.TrimSpace(origin))
	}
}
