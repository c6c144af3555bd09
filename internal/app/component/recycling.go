// SPDX-License-Identifier: Apache-2.0

package component

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"kaji/internal/controller/volumebinder"
)

// recycling are the flags about the pods that empty volumes of a kind.
type recycling struct {
	template       string // a file
	minimum, perGi int
}

func (r *recycling) addFlags(fs *pflag.FlagSet, of, increment string, usual volumebinder.Recycling) {
	fs.StringVar(&r.template, "pv-recycler-pod-template-filepath-"+of, "", "File with the pod that empties volumes of this kind: YAML or JSON; its first volume is the one to be emptied.")
	fs.IntVar(&r.minimum, "pv-recycler-minimum-timeout-"+of, usual.Minimum, "The shortest deadline of such a pod, in seconds.")
	fs.IntVar(&r.perGi, increment, usual.PerGi, "Seconds of such a pod's deadline for each GiB of the volume.")
}

// config reads the file.
func (r *recycling) config() (volumebinder.Recycling, error) {
	out := volumebinder.Recycling{Minimum: r.minimum, PerGi: r.perGi}
	if r.template == "" {
		return out, nil
	}
	data, err := os.ReadFile(r.template)
	if err != nil {
		return out, err
	}
	out.Template = &corev1.Pod{}
	if err := yaml.UnmarshalStrict(data, out.Template); err != nil {
		return out, fmt.Errorf("failed decoding file: %w", err)
	}
	if len(out.Template.Spec.Volumes) < 1 {
		return out, fmt.Errorf("pod specification (%s): does not contain any volume(s)", r.template)
	}
	return out, nil
}
