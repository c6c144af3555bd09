// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// addCDIDevices adds what the Container Device Interface's specifications in the
// node's directories say of the devices that a container asks for. They are read
// for each such container: a driver writes one just before the container that
// needs it, and few containers need any.
func addCDIDevices(s *specs.Spec, config *runtimeapi.ContainerConfig, dirs []string) error {
	names, err := cdiDevices(config)
	if err != nil {
		return fmt.Errorf("failed to parse CDI device annotations: %w", err)
	}
	if len(names) == 0 {
		return nil
	}
	cache, err := cdi.NewCache(cdi.WithAutoRefresh(false), cdi.WithSpecDirs(dirs...))
	if err != nil {
		return fmt.Errorf("CDI device injection failed: %w", err)
	}
	if _, err := cache.InjectDevices(s, names...); err != nil {
		// Some file that cannot be read may be why a device is unknown.
		for path, problems := range cache.GetErrors() {
			err = fmt.Errorf("%w; %s: %v", err, path, problems)
		}
		return fmt.Errorf("CDI device injection failed: %w", err)
	}
	return nil
}

// cdiDevices lists the devices by their qualified names, vendor/class=name: those
// of the field, and those that annotations cdi.k8s.io/… name besides.
func cdiDevices(config *runtimeapi.ContainerConfig) ([]string, error) {
	var names []string
	for _, d := range config.GetCDIDevices() {
		names = append(names, d.GetName())
	}
	_, annotated, err := cdi.ParseAnnotations(config.GetAnnotations())
	for _, name := range annotated {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, err
}
