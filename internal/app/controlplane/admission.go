// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"os"
	"path/filepath"

	apiserverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	"sigs.k8s.io/yaml"
)

// admissionConfigurations reads --admission-control-config-file: the
// configuration of each plug-in it names, from the file itself or from the one
// it names, relative to it.
func admissionConfigurations(file string) (map[string][]byte, error) {
	if file == "" {
		return nil, nil
	}
	fail := func(format string, args ...any) (map[string][]byte, error) {
		return nil, fmt.Errorf("--admission-control-config-file: %s: %w", file, fmt.Errorf(format, args...))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--admission-control-config-file: unable to read admission control configuration from %q [%w]", file, err)
	}
	var c apiserverv1.AdmissionConfiguration
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		return fail("%w", err)
	}
	if c.Kind != "AdmissionConfiguration" || c.APIVersion != "apiserver.config.k8s.io/v1" && c.APIVersion != "apiserver.k8s.io/v1alpha1" {
		return fail("no kind %q is registered for version %q; want AdmissionConfiguration of apiserver.config.k8s.io/v1", c.Kind, c.APIVersion)
	}
	all := map[string][]byte{}
	for i, p := range c.Plugins {
		switch {
		case p.Name == "":
			return fail("plugins[%d].name: a plug-in's name is needed", i)
		case p.Configuration != nil:
			all[p.Name] = p.Configuration.Raw
		case p.Path != "":
			path := p.Path
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(file), path)
			}
			if all[p.Name], err = os.ReadFile(path); err != nil {
				return fail("plugins[%d].path: %w", i, err)
			}
		}
	}
	return all, nil
}
