// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// addConfigFile lets a file give the flags of a verb: a YAML object whose keys are
// their names. What the command line says comes first.
func addConfigFile(cmd *cobra.Command) {
	file := cmd.Flags().String("config", "", "file with flags in YAML, such as nodes: 3; the command line comes first")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if *file == "" {
			return nil
		}
		data, err := os.ReadFile(*file)
		if err != nil {
			return fmt.Errorf("--config: %w", err)
		}
		if err := setFlags(cmd.Flags(), data); err != nil {
			return fmt.Errorf("--config: %s: %w", *file, err)
		}
		return nil
	}
}

// setFlags gives the flags their values in the file, but for those that were
// given already.
func setFlags(fs *pflag.FlagSet, data []byte) error {
	var values map[string]any
	if err := yaml.UnmarshalStrict(data, &values); err != nil {
		return fmt.Errorf("want an object whose keys are names of flags: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		flag := fs.Lookup(name)
		if flag == nil || name == "config" || name == "help" || name == "all" {
			return fmt.Errorf("there is no flag --%s; `--help --all` lists them", name)
		}
		if flag.Changed {
			continue
		}
		texts, err := texts(values[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, text := range texts {
			if err := fs.Set(name, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// texts are a value as it would stand on a command line, once for each time that
// the flag is given.
func texts(value any) ([]string, error) {
	switch v := value.(type) {
	case map[string]any:
		var parts []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, fmt.Sprintf("%s=%v", key, v[key]))
		}
		return []string{strings.Join(parts, ",")}, nil
	case []any:
		var out []string
		for _, one := range v {
			switch one.(type) {
			case map[string]any, []any, nil:
				return nil, fmt.Errorf("want a list of plain values")
			}
			out = append(out, fmt.Sprint(one))
		}
		return out, nil
	case nil:
		return nil, fmt.Errorf("has no value")
	}
	return []string{fmt.Sprint(value)}, nil
}
