// SPDX-License-Identifier: Apache-2.0

package dynamic

import (
	"bytes"
	"fmt"

	"k8s.io/apiserver/pkg/admission/plugin/webhook/config"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	"k8s.io/apiserver/pkg/util/webhook"
)

// Check refuses configurations that the plug-ins could not be built with, which
// they are when they are first needed, and that is too late for a mistake.
func Check(given map[string][]byte) error {
	for _, name := range []string{mutatingwebhook.PluginName, validatingwebhook.PluginName} {
		text := given[name]
		if len(text) == 0 {
			continue
		}
		c, err := config.LoadConfig(bytes.NewReader(text))
		if err == nil {
			_, err = webhook.NewDefaultAuthenticationInfoResolver(c.KubeConfigFile)
		}
		if err != nil {
			return fmt.Errorf("couldn't init admission plugin %q: %w", name, err)
		}
	}
	return nil
}
