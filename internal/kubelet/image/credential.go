// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// entry is one registry's login in a docker configuration.
type entry struct {
	Username string `json:"username"`
	Password string `json:"password"`
	Auth     string `json:"auth"`
	Email    string `json:"email"`
}

// Credentials returns the logins that secrets hold for an image, the most
// specific registry first. Secrets of other types are passed over.
func Credentials(image string, secrets []*corev1.Secret) ([]Login, error) {
	type match struct {
		registry string
		login    Login
	}
	var found []match
	for _, s := range secrets {
		entries, err := parse(s)
		if err != nil {
			return nil, fmt.Errorf("image pull secret %s/%s: %w", s.Namespace, s.Name, err)
		}
		for registry, e := range entries {
			if !Covers(registry, image) {
				continue
			}
			auth, err := e.auth()
			if err != nil {
				return nil, fmt.Errorf("image pull secret %s/%s: %w", s.Namespace, s.Name, err)
			}
			found = append(found, match{registry, whose(s, auth)})
		}
	}
	slices.SortStableFunc(found, func(a, b match) int { return strings.Compare(b.registry, a.registry) })
	logins := make([]Login, 0, len(found))
	for _, m := range found {
		logins = append(logins, m.login)
	}
	return logins, nil
}

func parse(s *corev1.Secret) (map[string]entry, error) {
	switch {
	case s.Type == corev1.SecretTypeDockerConfigJson && len(s.Data[corev1.DockerConfigJsonKey]) > 0:
		var config struct {
			Auths map[string]entry `json:"auths"`
		}
		if err := json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &config); err != nil {
			return nil, fmt.Errorf("read the docker configuration: %w", err)
		}
		return config.Auths, nil
	case s.Type == corev1.SecretTypeDockercfg && len(s.Data[corev1.DockerConfigKey]) > 0:
		var entries map[string]entry
		if err := json.Unmarshal(s.Data[corev1.DockerConfigKey], &entries); err != nil {
			return nil, fmt.Errorf("read the docker configuration: %w", err)
		}
		return entries, nil
	}
	return nil, nil
}

func (e entry) auth() (*runtimeapi.AuthConfig, error) {
	a := &runtimeapi.AuthConfig{Username: e.Username, Password: e.Password}
	if e.Auth != "" {
		plain, err := base64.StdEncoding.DecodeString(e.Auth)
		if err != nil {
			if plain, err = base64.RawStdEncoding.DecodeString(e.Auth); err != nil {
				return nil, fmt.Errorf("read the login: %w", err)
			}
		}
		user, password, ok := strings.Cut(string(plain), ":")
		if !ok {
			return nil, fmt.Errorf("read the login: it has no password")
		}
		a.Username, a.Password = user, password
	}
	return a, nil
}

// Covers says whether a registry of a configuration, such as
// "https://index.docker.io/v1/" or "*.example.com/team", serves an image.
func Covers(registry, image string) bool {
	registry = strings.TrimPrefix(strings.TrimPrefix(registry, "https://"), "http://")
	registry = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(registry, "/"), "/v1"), "/v2")
	host, rest, _ := strings.Cut(image, "/")
	if !strings.ContainsAny(host, ".:") && host != "localhost" || rest == "" {
		host, rest = "docker.io", image
	}
	wantHost, wantPath, _ := strings.Cut(registry, "/")
	if wantHost == "index.docker.io" || wantHost == "registry-1.docker.io" {
		wantHost = "docker.io"
	}
	if !hostMatches(wantHost, host) {
		return false
	}
	return wantPath == "" || rest == wantPath || strings.HasPrefix(rest, wantPath)
}

// hostMatches compares part by part, so that a star never spans a dot.
func hostMatches(pattern, host string) bool {
	p, h := strings.Split(pattern, "."), strings.Split(host, ".")
	if len(p) != len(h) {
		return false
	}
	for i := range p {
		if ok, err := path.Match(p[i], h[i]); err != nil || !ok {
			return false
		}
	}
	return true
}
