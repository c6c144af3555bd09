// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"errors"
	"fmt"
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/conversion"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/util/webhook"

	"kaji/internal/api"
	"kaji/internal/apiserver/resolve"
)

// maxAnswer bounds the answer of a conversion webhook, in bytes: it holds the
// objects that were sent, in another version.
const maxAnswer = 64 << 20

// Webhooks returns the Convert of a Config: upstream's conversion webhooks,
// whose Services are found by services. Nothing is built before the first is
// needed.
func Webhooks(services webhook.ServiceResolver) func(*apiextensionsv1.CustomResourceDefinition) (Converter, error) {
	factory := sync.OnceValues(func() (*conversion.CRConverterFactory, error) {
		return conversion.NewCRConverterFactory(services, resolve.Guard(maxAnswer))
	})
	return func(crd *apiextensionsv1.CustomResourceDefinition) (Converter, error) {
		f, err := factory()
		if err != nil {
			return nil, err
		}
		_, unsafe, err := f.NewConverter(crd)
		if err != nil {
			return nil, err
		}
		return webhookConverter{unsafe}, nil
	}
}

// webhookConverter asks a definition's webhook.
type webhookConverter struct{ convert runtime.ObjectConvertor }

// ConvertTo implements Converter.
func (w webhookConverter) ConvertTo(in runtime.Object, to schema.GroupVersion) (runtime.Object, error) {
	return w.convert.ConvertToVersion(in, to)
}

// errNoConversion is what a definition with a webhook gets without Convert.
var errNoConversion = errors.New("conversion webhooks are not available")

// Converter converts an object, or the items of an UnstructuredList, to a
// version by a webhook; it may use in up.
type Converter interface {
	ConvertTo(in runtime.Object, to schema.GroupVersion) (runtime.Object, error)
}

// lazyWebhook makes the converter of a definition at its first use.
type lazyWebhook struct {
	name string
	make func() (Converter, error)
}

func (c *Controller) webhook(crd *apiextensionsv1.CustomResourceDefinition) *lazyWebhook {
	crd = withoutSchemas(crd)
	return &lazyWebhook{name: crd.Name, make: sync.OnceValues(func() (Converter, error) {
		if c.cfg.Convert == nil {
			return nil, errNoConversion
		}
		return c.cfg.Convert(crd)
	})}
}

func (w *lazyWebhook) convert(in runtime.Object, to schema.GroupVersion) (runtime.Object, error) {
	converter, err := w.make()
	if err != nil {
		return nil, fmt.Errorf("conversion webhook for %s: %w", w.name, err)
	}
	return converter.ConvertTo(in, to)
}

// one converts one object.
func (w *lazyWebhook) one(in *Unstructured, to schema.GroupVersion) (*Unstructured, error) {
	in = in.DeepCopy()
	if in.GroupVersionKind().GroupVersion() == to {
		return in, nil
	}
	out, err := w.convert(in, to)
	if err != nil {
		return nil, err
	}
	u, ok := out.(*Unstructured)
	if !ok {
		return nil, fmt.Errorf("conversion made a %T", out)
	}
	return u, nil
}

// all converts objects with one request.
func (w *lazyWebhook) all(in []api.Object, to schema.GroupVersion) (*unstructured.UnstructuredList, error) {
	list := &unstructured.UnstructuredList{Items: make([]Unstructured, len(in))}
	for i, obj := range in {
		list.Items[i] = *obj.(*Unstructured).DeepCopy()
	}
	if len(in) > 0 {
		gvk := list.Items[0].GroupVersionKind()
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	}
	out, err := w.convert(list, to)
	if err != nil {
		return nil, err
	}
	converted, ok := out.(*unstructured.UnstructuredList)
	if !ok {
		return nil, fmt.Errorf("conversion made a %T", out)
	}
	return converted, nil
}
