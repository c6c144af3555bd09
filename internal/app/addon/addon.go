// SPDX-License-Identifier: Apache-2.0

// Package addon keeps the objects that come with a cluster: manifests, a folder
// an add-on, applied when the cluster starts. What carries the label
// addonmanager.kubernetes.io/mode=EnsureExists belongs to the cluster's owner
// once it is there; everything else is set right again at each start, in the
// fields that its manifest names.
//
// Folders of the cluster's owner are add-ons as well; one by the name of an
// add-on that comes with the program takes its place.
package addon

import (
	"bytes"
	"context"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/template"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"

	"kaji/internal/client"
)

//go:embed manifests
var manifests embed.FS

const (
	manager     = "kaji-addons"
	modeLabel   = "addonmanager.kubernetes.io/mode"
	onlyAtFirst = "EnsureExists"
)

// Values fill the manifests.
type Values struct {
	// DNS are the name server's addresses, one a family.
	DNS []netip.Addr
	// Domain is the cluster's DNS domain, PodCIDRs its ranges of pods.
	Domain   string
	PodCIDRs []netip.Prefix
	// Server is where the API server is reached, CA the PEM bundle it is
	// trusted by.
	Server, CA string
	// PodNetwork is "cni" where plug-ins connect pods, empty where the embedded
	// network does.
	PodNetwork string
	// Off are the add-ons that are left out, for nodes that join.
	Off []string
	// Corefile is the name server's first configuration.
	Corefile string
}

// Apply applies the objects of all add-ons but those named in off, with those of
// the owner's folders below dir; empty is none. A fault in one does not keep the
// others.
func Apply(ctx context.Context, api client.Interface, v Values, off []string, dir string) error {
	all, err := sources(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range all {
		if slices.Contains(off, s.name) {
			continue
		}
		objects, err := read(s.files, v)
		if err != nil {
			errs = append(errs, fmt.Errorf("add-on %s: %w", s.name, err))
		}
		for _, o := range objects {
			if err := apply(ctx, api, o); err != nil {
				errs = append(errs, fmt.Errorf("add-on %s: %s %s: %w", s.name, o.GetKind(), o.GetName(), err))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// apply applies one object. Of one without a namespace is not known whether its
// kind has them: then it belongs to the namespace default.
func apply(ctx context.Context, api client.Interface, o *unstructured.Unstructured) error {
	gvr, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
	at := client.Resource{GroupVersionResource: gvr, Namespace: o.GetNamespace()}
	err := applyAt(ctx, api, at, o)
	if at.Namespace != "" || err == nil {
		return err
	}
	o.SetNamespace(metav1.NamespaceDefault)
	at.Namespace = metav1.NamespaceDefault
	if again := applyAt(ctx, api, at, o); again == nil || apierrors.IsInvalid(again) {
		return again
	}
	return err
}

func applyAt(ctx context.Context, api client.Interface, at client.Resource, o *unstructured.Unstructured) error {
	if o.GetLabels()[modeLabel] == onlyAtFirst {
		_, err := api.Get(ctx, at, o.GetName(), metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	data, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	force := true
	_, err = api.Patch(ctx, at, o.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: manager, Force: &force})
	return err
}

var functions = template.FuncMap{
	"indent": func(n int, s string) string {
		pad := strings.Repeat(" ", n)
		return pad + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n"+pad)
	},
	"quote":  strconv.Quote,
	"join":   func(words []string) string { return strings.Join(words, ",") },
	"base64": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"family": func(a netip.Addr) string {
		if a.Is4() {
			return "IPv4"
		}
		return "IPv6"
	},
}

// read returns the objects of an add-on, in the order of its files.
func read(from fs.FS, v Values) ([]*unstructured.Unstructured, error) {
	files, err := fs.Glob(from, "*.yaml")
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	for _, file := range files {
		t, err := template.New(path.Base(file)).Funcs(functions).ParseFS(from, file)
		if err != nil {
			return nil, err
		}
		var text bytes.Buffer
		if err := t.Execute(&text, v); err != nil {
			return nil, err
		}
		decoder := yaml.NewYAMLOrJSONDecoder(&text, 4096)
		for {
			o := &unstructured.Unstructured{}
			err := decoder.Decode(o)
			if err == io.EOF {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			if len(o.Object) > 0 {
				out = append(out, o)
			}
		}
	}
	return out, nil
}
