// SPDX-License-Identifier: Apache-2.0

package annotation_test

import (
	"strings"
	"testing"
	"time"

	"kaji/internal/ingress/annotation"
)

func TestParse(t *testing.T) {
	s, problems := annotation.Parse(map[string]string{
		annotation.Nginx + "proxy-body-size":        "8m",
		annotation.Nginx + "proxy-read-timeout":     "3600",
		annotation.Own + "proxy-read-timeout":       "120",
		annotation.Nginx + "limit-rps":              "10",
		annotation.Nginx + "whitelist-source-range": "10.0.0.0/8, 192.0.2.7",
		annotation.Nginx + "backend-protocol":       "grpc",
		annotation.Nginx + "affinity":               "cookie",
		annotation.Nginx + "auth-type":              "basic",
		annotation.Nginx + "auth-secret":            "users",
		annotation.Nginx + "auth-realm":             "a \"b\"\r\nc",
		annotation.Nginx + "permanent-redirect":     "https://example.com/",
	})
	if len(problems) != 0 || s.Refused != "" {
		t.Fatalf("problems are %q, refused for %q", problems, s.Refused)
	}
	if s.BodySize != 8<<20 || s.ReadTimeout != 2*time.Minute || s.Rate != 10 || s.Burst != 50 || s.Protocol != annotation.GRPC {
		t.Errorf("bounds are %+v", s)
	}
	if len(s.Allow) != 2 || s.Allow[1].String() != "192.0.2.7/32" || s.Affinity.Name != "INGRESSCOOKIE" || s.Auth.Realm != "a bc" || s.RedirectCode != 301 {
		t.Errorf("guards are %+v %+v %+v", s.Allow, s.Affinity, s.Auth)
	}
	if !s.SSLRedirect || s.ForceSSLRedirect {
		t.Error("the redirect to HTTPS is not what it is by default")
	}
}

// What protects a backend is never dropped silently.
func TestProtectionIsNotDropped(t *testing.T) {
	for name, value := range map[string]string{
		"auth-url": "ftp://auth.test", "auth-tls-secret": "default/ca", "whitelist-source-range": "10.0.0.0/8, nonsense", "denylist-source-range": "x",
		"auth-type": "digest", "enable-modsecurity": "true",
	} {
		s, problems := annotation.Parse(map[string]string{annotation.Nginx + name: value})
		if !strings.Contains(s.Refused, name) || len(problems) != 1 {
			t.Errorf("%s: refused for %q, problems %q", name, s.Refused, problems)
		}
	}
	for _, secret := range []string{"", "other/users"} {
		s, _ := annotation.Parse(map[string]string{annotation.Nginx + "auth-type": "basic", annotation.Nginx + "auth-secret": secret})
		if s.Refused == "" {
			t.Errorf("the secret %q is taken", secret)
		}
	}
}

func TestWhatCannotBeReadHasItsDefault(t *testing.T) {
	s, problems := annotation.Parse(map[string]string{
		annotation.Nginx + "proxy-body-size": "-1", annotation.Nginx + "proxy-read-timeout": "soon", annotation.Nginx + "ssl-redirect": "perhaps",
		annotation.Nginx + "backend-protocol": "FCGI", annotation.Nginx + "nonsense": "true", annotation.Nginx + "app-root": "x"})
	if len(problems) != 6 {
		t.Errorf("problems are %q", problems)
	}
	if s.BodySize != 0 || s.ReadTimeout != time.Minute || !s.SSLRedirect || s.Protocol != annotation.HTTP || s.AppRoot != "" || s.Refused != "" {
		t.Errorf("settings are %+v", s)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("proxy-body-size", "9223372036854775807g")
	f.Add("limit-rps", "1")
	f.Add("whitelist-source-range", "::/0,")
	f.Fuzz(func(t *testing.T, name, value string) {
		s, _ := annotation.Parse(map[string]string{annotation.Own + name: value})
		if s.BodySize < 0 || s.Rate < 0 || s.Burst < 0 {
			t.Errorf("%s=%q gives %+v", name, value, s)
		}
	})
}
