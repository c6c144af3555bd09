// SPDX-License-Identifier: Apache-2.0

// Dump writes the generated definitions as two assets, v2.json.gz and
// v3.json.gz: a JSON object of schemas by name each, in the form that the
// OpenAPI document of that version holds them in.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationv1beta1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1beta1"
	"k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"

	autoscalingv2beta1 "kaji/internal/api/autoscaling/v2beta1"
	"kaji/tools/gen/openapi/definitions"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: dump ASSETS")
	}
	if err := dump(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func dump(assets string) error {
	all := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		scheme.AddToScheme, apiextensionsv1.AddToScheme, apiextensionsv1beta1.AddToScheme, apiregistrationv1.AddToScheme,
		apiregistrationv1beta1.AddToScheme,
	} {
		if err := add(all); err != nil {
			return err
		}
	}
	all.AddKnownTypes(autoscalingv2beta1.SchemeGroupVersion,
		&autoscalingv2beta1.HorizontalPodAutoscaler{}, &autoscalingv2beta1.HorizontalPodAutoscalerList{})
	namer := openapi.NewDefinitionNamer(all)
	name := func(n string) (string, spec.Extensions) {
		n, extensions := namer.GetDefinitionName(n)
		return n, extensions
	}
	var names []string
	for n := range definitions.GetOpenAPIDefinitions(func(string) spec.Ref { return spec.Ref{} }) {
		names = append(names, n)
	}
	slices.Sort(names)
	v2, err := builder.BuildOpenAPIDefinitionsForResources(&common.Config{
		GetDefinitions: definitions.GetOpenAPIDefinitions, GetDefinitionName: name,
	}, names...)
	if err != nil {
		return err
	}
	if err := write(filepath.Join(assets, "v2.json.gz"), v2.Definitions); err != nil {
		return err
	}
	v3, err := builder3.BuildOpenAPIDefinitionsForResources(&common.OpenAPIV3Config{
		GetDefinitions: definitions.GetOpenAPIDefinitions, GetDefinitionName: name,
	}, names...)
	if err != nil {
		return err
	}
	return write(filepath.Join(assets, "v3.json.gz"), v3)
}

// write compresses a value's JSON, the same bytes at every run.
func write(file string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(data); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	log.Printf("%s: %d bytes of %d", strings.TrimSuffix(filepath.Base(file), ".gz"), out.Len(), len(data))
	return os.WriteFile(file, out.Bytes(), 0o644)
}
