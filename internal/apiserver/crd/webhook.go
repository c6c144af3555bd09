// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"fmt"
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/util/webhook"

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
func (w webhookConverter) ConvertTo(in *Unstructured, to schema.GroupVersion) (*Unstructured, error) {
	out, err := w.convert.ConvertToVersion(in, to)
	if err != nil {
		return nil, err
	}
	u, ok := out.(*Unstructured)
	if !ok {
		return nil, fmt.Errorf("conversion made a %T", out)
	}
	return u, nil
}
