// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// hosts knows where the images of a registry may be had: the registry itself,
// or what <dir>/<registry>/hosts.toml names, in the format of containerd:
//
//	server = "https://registry.example"
//	[host."https://mirror.example"]
//	  capabilities = ["pull", "resolve"]
//	  ca = "ca.pem"
//	  client = [["client.pem", "client.key"]]
//	  skip_verify = false
type hosts struct {
	dir   string
	stall time.Duration

	mu         sync.Mutex
	transports map[string]http.RoundTripper // by their settings
}

// source is one place to pull from.
type source struct {
	host      string // with a port, if any
	plain     bool   // HTTP
	transport http.RoundTripper
}

// hostConfig is one section of a hosts.toml.
type hostConfig struct {
	url          string
	capabilities []string
	ca, client   []string // client: certificate and key in turn
	skipVerify   bool
}

// sources lists the hosts of a registry that can do something, "pull" or
// "push", in order.
func (h *hosts) sources(registry, capability string) ([]source, error) {
	own := hostConfig{url: "https://" + registry}
	if registry == defaultRegistry {
		own.url = "https://index.docker.io"
	} else if isLocal(registry) {
		own.url = "http://" + registry
	}
	configs := []hostConfig{own}
	if h.dir != "" {
		for _, section := range []string{registry, "_default"} {
			path := filepath.Join(h.dir, section, "hosts.toml")
			raw, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if configs, err = parseHosts(string(raw), filepath.Dir(path), own); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			break
		}
	}
	var list []source
	for _, c := range configs {
		if len(c.capabilities) > 0 && !slices.Contains(c.capabilities, capability) {
			continue
		}
		u, err := url.Parse(c.url)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("registry host %q is not a URL", c.url)
		}
		t, err := h.transport(c)
		if err != nil {
			return nil, err
		}
		list = append(list, source{host: u.Host, plain: u.Scheme == "http", transport: t})
	}
	return list, nil
}

// isLocal is true for registries on this machine, which need no TLS.
func isLocal(registry string) bool {
	host, _, err := net.SplitHostPort(registry)
	if err != nil {
		host = registry
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (h *hosts) transport(c hostConfig) (http.RoundTripper, error) {
	key := fmt.Sprint(c.ca, c.client, c.skipVerify)
	h.mu.Lock()
	defer h.mu.Unlock()
	if t, ok := h.transports[key]; ok {
		return t, nil
	}
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 15 * time.Second,
		IdleConnTimeout:     30 * time.Second,
		MaxIdleConnsPerHost: parallelLayers,
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: c.skipVerify, MinVersion: tls.VersionTLS12},
	}
	if len(c.ca) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, err
		}
		for _, path := range c.ca {
			raw, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			if !pool.AppendCertsFromPEM(raw) {
				return nil, fmt.Errorf("%s holds no certificate", path)
			}
		}
		t.TLSClientConfig.RootCAs = pool
	}
	for i := 0; i+1 < len(c.client); i += 2 {
		pair, err := tls.LoadX509KeyPair(c.client[i], c.client[i+1])
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig.Certificates = append(t.TLSClientConfig.Certificates, pair)
	}
	if h.transports == nil {
		h.transports = map[string]http.RoundTripper{}
	}
	h.transports[key] = resuming{t, h.stall}
	return h.transports[key], nil
}

// parseHosts reads the part of TOML that hosts.toml uses: strings, booleans,
// (nested) lists of strings on one line, and [host."url"] sections. Relative
// paths are below dir. The registry itself comes last.
func parseHosts(text, dir string, server hostConfig) ([]hostConfig, error) {
	var mirrors []hostConfig
	at := &server
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if section, ok := strings.CutPrefix(line, "["); ok {
			section = strings.TrimSpace(strings.TrimSuffix(section, "]"))
			quoted, ok := strings.CutPrefix(section, "host.")
			if !ok || strings.Contains(strings.Trim(quoted, `"`), `"`) {
				at = new(hostConfig) // a section such as [host."x".header], which is left out
				continue
			}
			mirrors = append(mirrors, hostConfig{url: strings.Trim(quoted, `"`)})
			at = &mirrors[len(mirrors)-1]
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("line %d is neither a section nor a setting", n)
		}
		if err := at.set(strings.TrimSpace(key), strings.TrimSpace(value), dir); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return append(mirrors, server), lines.Err()
}

func (c *hostConfig) set(key, value, dir string) error {
	words, err := tomlStrings(value)
	switch key {
	case "server":
		if len(words) == 1 {
			c.url = words[0]
		}
	case "capabilities":
		c.capabilities = words
	case "ca", "client":
		for i, w := range words {
			if !filepath.IsAbs(w) {
				words[i] = filepath.Join(dir, w)
			}
		}
		if key == "ca" {
			c.ca = words
		} else {
			c.client = words
		}
	case "skip_verify":
		c.skipVerify, err = strconv.ParseBool(value)
	default:
		return nil
	}
	return err
}

// tomlStrings collects the quoted strings of a value, in order.
func tomlStrings(value string) (words []string, err error) {
	for value != "" {
		quote := strings.IndexAny(value, `"'#`)
		if quote < 0 || value[quote] == '#' {
			return words, nil
		}
		end := strings.IndexByte(value[quote+1:], value[quote])
		if end < 0 {
			return nil, errors.New("a string has no end")
		}
		words = append(words, value[quote+1:quote+1+end])
		value = value[quote+end+2:]
	}
	return words, nil
}

// dockerAuth looks a registry up in a docker client's configuration.
func dockerAuth(path, registry string) (authn.AuthConfig, bool) {
	if path == "" {
		return authn.AuthConfig{}, false
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return authn.AuthConfig{}, false
	}
	var config struct {
		Auths map[string]struct{ Auth, Username, Password, IdentityToken string }
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return authn.AuthConfig{}, false
	}
	for key, a := range config.Auths {
		host := strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
		host, _, _ = strings.Cut(host, "/")
		if host != registry {
			continue
		}
		if user, password, ok := decodeAuth(a.Auth); ok {
			a.Username, a.Password = user, password
		}
		return authn.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken}, true
	}
	return authn.AuthConfig{}, false
}

func decodeAuth(auth string) (user, password string, ok bool) {
	raw, err := base64.StdEncoding.DecodeString(auth)
	if auth == "" || err != nil {
		return "", "", false
	}
	user, password, ok = strings.Cut(string(raw), ":")
	return user, strings.TrimRight(password, "\x00"), ok
}

// Login looks the registry of an image up in a docker client's configuration;
// the zero value is none.
func Login(path, image string) Auth {
	ref, err := parseReference(image)
	if err != nil {
		return Auth{} // refused where it is used
	}
	registry := ref.registry()
	if registry == defaultRegistry {
		registry = name.DefaultRegistry
	}
	a, _ := dockerAuth(path, registry)
	return Auth{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
}
