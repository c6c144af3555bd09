// SPDX-License-Identifier: Apache-2.0

package credentialprovider

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	configv1 "k8s.io/kubelet/config/v1"
	credentialv1 "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
	"sigs.k8s.io/yaml"
)

// Load reads a CredentialProviderConfig: a file, or the files of a directory in
// their order. Plug-ins are programs of the directory bin. The error says what is
// wrong, in upstream's words.
func Load(path, bin string) ([]configv1.CredentialProvider, error) {
	files := []string{path}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("unable to access path %q: %w", path, err)
	}
	if info.IsDir() {
		files = nil
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, fmt.Errorf("unable to access path %q: %w", path, err)
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); !e.IsDir() && slices.Contains([]string{".json", ".yaml", ".yml"}, ext) {
				files = append(files, filepath.Join(path, e.Name()))
			}
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("no configuration files found in directory %q", path)
		}
	}
	var all []configv1.CredentialProvider
	for _, f := range files {
		some, err := read(f)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, validate(all, bin)
}

func read(path string) ([]configv1.CredentialProvider, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("unable to read external registry credential provider configuration from %q: %w", path, err)
	}
	var c configv1.CredentialProviderConfig
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return nil, fmt.Errorf("error decoding config %s: %w", path, err)
	}
	switch group, version, _ := strings.Cut(c.APIVersion, "/"); {
	case c.Kind != "CredentialProviderConfig":
		return nil, fmt.Errorf("failed to decode %q (wrong Kind)", c.Kind)
	case group != "kubelet.config.k8s.io" || !slices.Contains([]string{"v1", "v1beta1", "v1alpha1"}, version):
		return nil, fmt.Errorf("failed to load CredentialProviderConfig, unexpected version: %s", c.APIVersion)
	}
	return c.Providers, nil
}

func validate(all []configv1.CredentialProvider, bin string) error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(all) == 0 {
		refuse("providers: Required value: at least 1 item in plugins is required")
	}
	seen := map[string]bool{}
	for _, p := range all {
		switch {
		case p.Name == "" || p.Name == "." || p.Name == ".." || strings.ContainsAny(p.Name, "/ "):
			refuse("providers.name: Invalid value: %q: provider name must be the base name of a file without spaces", p.Name)
			continue
		case seen[p.Name]:
			refuse("providers.name: Duplicate value: %q", p.Name)
		}
		seen[p.Name] = true
		if len(p.MatchImages) == 0 {
			refuse("providers.matchImages: Required value: at least 1 item in matchImages is required")
		}
		if p.DefaultCacheDuration == nil {
			refuse("providers.defaultCacheDuration: Required value: defaultCacheDuration is required")
		} else if p.DefaultCacheDuration.Duration < 0 {
			refuse("providers.defaultCacheDuration: Invalid value: %q: defaultCacheDuration must be greater than or equal to 0", p.DefaultCacheDuration.Duration)
		}
		if p.APIVersion != credentialv1.SchemeGroupVersion.String() && p.APIVersion != credentialv1.GroupName+"/v1beta1" && p.APIVersion != credentialv1.GroupName+"/v1alpha1" {
			refuse("providers.apiVersion: Unsupported value: %q", p.APIVersion)
		}
		if t := p.TokenAttributes; t != nil && (t.ServiceAccountTokenAudience == "" || t.RequireServiceAccount == nil ||
			t.CacheType != configv1.TokenServiceAccountTokenCacheType && t.CacheType != configv1.ServiceAccountServiceAccountTokenCacheType) {
			refuse("providers.tokenAttributes: Invalid value: serviceAccountTokenAudience, cacheType (Token or ServiceAccount) and requireServiceAccount are required")
		}
		if _, err := os.Stat(filepath.Join(bin, p.Name)); err != nil {
			refuse("plugin binary executable %s did not exist", filepath.Join(bin, p.Name))
		}
	}
	return errors.Join(errs...)
}
