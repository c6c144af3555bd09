// SPDX-License-Identifier: Apache-2.0

package encryption

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	apiserverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/storage/value"
	encryptaes "k8s.io/apiserver/pkg/storage/value/encrypt/aes"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/apiserver/pkg/storage/value/encrypt/secretbox"
)

// The beginnings of stored values, by which upstream and kaji know who can read
// them; the name of the key and a colon follow.
const (
	prefixCBC       = "k8s:enc:aescbc:v1:"
	prefixGCM       = "k8s:enc:aesgcm:v1:"
	prefixSecretbox = "k8s:enc:secretbox:v1:"
	prefixKMS       = "k8s:enc:kms:v2:"
)

// load reads an EncryptionConfiguration, strictly. reload says that it may be
// replaced while the server runs, which asks for unique names of KMS plug-ins.
func load(data []byte, reload bool) (*apiserver.EncryptionConfiguration, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(apiserver.AddToScheme(scheme), apiserverv1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	if len(data) == 0 {
		return nil, errors.New("encryption provider configuration file is empty")
	}
	obj, gvk, err := codecs.UniversalDecoder().Decode(data, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("error decoding encryption provider configuration file: %w", err)
	}
	config, ok := obj.(*apiserver.EncryptionConfiguration)
	if !ok {
		return nil, fmt.Errorf("got unexpected config type: %v", gvk)
	}
	return config, validation.ValidateEncryptionConfiguration(config, reload).ToAggregate()
}

// everything is the resource of the rule "*.*".
var everything = schema.GroupResource{Group: "*", Resource: "*"}

// build makes the transformers of a configuration. KMS plug-ins are dialled and
// watched until ctx ends, after an error too.
func (s *set) build(ctx context.Context, config *apiserver.EncryptionConfiguration) error {
	byResource := map[schema.GroupResource][]value.PrefixTransformer{}
	for i := range config.Resources {
		var transformers []value.PrefixTransformer
		for j := range config.Resources[i].Providers {
			t, err := s.transformer(ctx, &config.Resources[i].Providers[j])
			if err != nil {
				return err
			}
			transformers = append(transformers, t)
		}
		for _, name := range config.Resources[i].Resources {
			gr := schema.ParseGroupResource(name)
			for _, wide := range []schema.GroupResource{{Group: gr.Group, Resource: "*"}, everything} {
				if _, masked := byResource[wide]; masked {
					return fmt.Errorf("resource %q is masked by earlier rule %q", word(gr), word(wide))
				}
			}
			byResource[gr] = append(byResource[gr], transformers...)
		}
	}
	s.transformers = map[schema.GroupResource]value.Transformer{}
	for gr, all := range byResource {
		s.transformers[gr] = value.NewPrefixTransformers(errors.New("no matching prefix found"), all...)
	}
	return nil
}

// word spells a resource as the file does.
func word(gr schema.GroupResource) string {
	if gr.Group == "" && gr.Resource == "*" {
		return "*."
	}
	return gr.String()
}

// of returns what reads and writes the values of a resource.
func (s *set) of(gr schema.GroupResource) value.Transformer {
	for _, rule := range []schema.GroupResource{gr, {Group: gr.Group, Resource: "*"}, everything} {
		if t := s.transformers[rule]; t != nil {
			return t
		}
	}
	return plain
}

// plain stores values as they are, and refuses to take encrypted ones for such.
var plain = identity.NewEncryptCheckTransformer()

func (s *set) transformer(ctx context.Context, p *apiserver.ProviderConfiguration) (value.PrefixTransformer, error) {
	switch {
	case p.AESGCM != nil:
		return keyed(prefixGCM, "AES", p.AESGCM.Keys, func(key []byte) (value.Transformer, error) { return ofBlock(key, encryptaes.NewGCMTransformer) })
	case p.AESCBC != nil:
		return keyed(prefixCBC, "AES", p.AESCBC.Keys, func(key []byte) (value.Transformer, error) {
			return ofBlock(key, func(b cipher.Block) (value.Transformer, error) { return encryptaes.NewCBCTransformer(b), nil })
		})
	case p.Secretbox != nil:
		return keyed(prefixSecretbox, "Secretbox", p.Secretbox.Keys, func(key []byte) (value.Transformer, error) {
			if len(key) != 32 {
				return nil, fmt.Errorf("expected key size 32 for secretbox provider, got %v", len(key))
			}
			return secretbox.NewSecretboxTransformer([32]byte(key)), nil
		})
	case p.KMS != nil:
		return s.kms(ctx, p.KMS)
	case p.Identity != nil:
		return value.PrefixTransformer{Transformer: plain, Prefix: []byte{}}, nil
	}
	return value.PrefixTransformer{}, errors.New("provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity")
}

// keyed makes a transformer of several keys: the first one writes, all read.
func keyed(prefix, what string, keys []apiserver.Key, with func(key []byte) (value.Transformer, error)) (value.PrefixTransformer, error) {
	var all []value.PrefixTransformer
	for _, k := range keys {
		key, err := base64.StdEncoding.DecodeString(k.Secret)
		if err != nil {
			return value.PrefixTransformer{}, fmt.Errorf("could not obtain secret for named key %s: %w", k.Name, err)
		}
		t, err := with(key)
		if err != nil {
			return value.PrefixTransformer{}, fmt.Errorf("error while creating transformer for named key %s: %w", k.Name, err)
		}
		all = append(all, value.PrefixTransformer{Transformer: t, Prefix: []byte(k.Name + ":")})
	}
	t := value.NewPrefixTransformers(fmt.Errorf("no matching key was found for the provided %s transformer", what), all...)
	return value.PrefixTransformer{Transformer: t, Prefix: []byte(prefix)}, nil
}

func ofBlock(key []byte, with func(cipher.Block) (value.Transformer, error)) (value.Transformer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return with(block)
}
