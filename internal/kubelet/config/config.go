// SPDX-License-Identifier: Apache-2.0

// Package config reads KubeletConfiguration v1beta1: the file of --config, the
// drop-in files of --config-dir merged over it in their order, upstream's
// defaults for what is absent, and upstream's refusals of what is not valid.
// Package app hands it the files' contents and turns the result into an agent;
// package flags lays command-line flags over it. It touches no files.
package config

import (
	"encoding/json"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

// kind is what every file has to be.
const kind = "KubeletConfiguration"

// File is one configuration file.
type File struct {
	// Path is for messages.
	Path string
	Data []byte
}

// Default returns the configuration of an agent that was given none.
func Default() *configv1beta1.KubeletConfiguration {
	c := &configv1beta1.KubeletConfiguration{}
	SetDefaults(c)
	return c
}

// Load reads a configuration, YAML or JSON, and lays drop-in files over it:
// objects merge, lists and other values replace. Fields that do not exist are
// ignored in the first file, as upstream does for the sake of older files, and
// reported by lenient; in drop-in files they are an error. Nothing is defaulted.
func Load(main *File, dropIns []File) (c *configv1beta1.KubeletConfiguration, lenient error, err error) {
	merged := map[string]any{}
	if main != nil {
		if lenient, err = decode(main.Data, merged); err != nil {
			return nil, nil, fmt.Errorf("failed to load kubelet config file, path: %s, error: %w", main.Path, err)
		}
	}
	for _, f := range dropIns {
		strict, err := decode(f.Data, merged)
		if err = errors.Join(err, strict); err != nil {
			return nil, nil, fmt.Errorf("failed to load kubelet dropin file, path: %s, error: %w", f.Path, err)
		}
	}
	data, err := json.Marshal(merged)
	if err != nil {
		return nil, nil, err
	}
	c = &configv1beta1.KubeletConfiguration{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, nil, fmt.Errorf("failed to merge kubelet configs: %w", err)
	}
	return c, lenient, nil
}

// decode checks a file and merges it into what was read before. Unknown and
// repeated fields are reported apart.
func decode(data []byte, into map[string]any) (strict, err error) {
	scheme := runtime.NewScheme()
	utilruntime.Must(configv1beta1.AddToScheme(scheme))
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	_, gvk, err := decoder.Decode(data, nil, nil)
	if runtime.IsStrictDecodingError(err) {
		strict = err
		lenient := serializer.NewCodecFactory(scheme).UniversalDeserializer()
		_, gvk, err = lenient.Decode(data, nil, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to decode: %w", err)
	}
	if gvk.Kind != kind {
		return nil, fmt.Errorf("failed to cast object to KubeletConfiguration, unexpected type: %v", gvk)
	}
	var fields map[string]any
	if err := yaml.Unmarshal(data, &fields); err != nil {
		return nil, fmt.Errorf("failed to decode: %w", err)
	}
	merge(into, fields)
	return strict, nil
}

func merge(into, from map[string]any) {
	for name, value := range from {
		object, isObject := value.(map[string]any)
		before, wasObject := into[name].(map[string]any)
		switch {
		case value == nil:
			delete(into, name)
		case isObject && wasObject:
			merge(before, object)
		default:
			into[name] = value
		}
	}
}
