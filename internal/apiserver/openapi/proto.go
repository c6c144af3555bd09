// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"github.com/google/gnostic-models/compiler"
	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
)

// Documents in the protobuf form that older clients read are written as messages
// one after another, which are merged by who reads them as one: what makes messages
// of JSON takes thirty times its memory.

// batch is how much JSON is made messages at once, in bytes.
const batch = 64 << 10

// writeProtoV2 writes a v2 document.
func writeProtoV2(w io.Writer, version string, fragments iter.Seq2[fragment, error]) error {
	about := aboutV2(version)
	about[sectionPaths] = object{}
	whole, err := parseV2(about)
	if err != nil {
		return err
	}
	if err := writeProto(w, whole); err != nil {
		return err
	}
	return inBatches(fragments, func(sections object) error {
		about := object{"swagger": "2.0", "info": info(version), sectionPaths: object{}}
		for name, members := range sections {
			about[name] = members
		}
		some, err := parseV2(about)
		if err != nil {
			return err
		}
		return writeProto(w, &openapi_v2.Document{Paths: some.Paths, Definitions: some.Definitions, Parameters: some.Parameters})
	})
}

func parseV2(document object) (*openapi_v2.Document, error) {
	root, err := documentNode(document)
	if err != nil {
		return nil, err
	}
	return openapi_v2.NewDocument(root, compiler.NewContextWithExtensions("$root", root, nil, nil))
}

// sectionSchemas are the models of a v3 document.
const sectionSchemas = "schemas"

// writeProtoV3 writes the v3 document of a part.
func writeProtoV3(w io.Writer, version string, p *part) error {
	about := object{"openapi": "3.0.0", "info": p.info(version), sectionPaths: object{}}
	if !p.custom {
		about["components"] = object{"securitySchemes": securitySchemes()}
	}
	whole, err := parseV3(about)
	if err != nil {
		return err
	}
	if err := writeProto(w, whole); err != nil {
		return err
	}
	return inBatches(p.fragments(), func(sections object) error {
		about := object{"openapi": "3.0.0", "info": info(version), sectionPaths: object{}}
		if paths, some := sections[sectionPaths]; some {
			about[sectionPaths] = paths
		}
		if schemas, some := sections[sectionSchemas]; some {
			about["components"] = object{sectionSchemas: schemas}
		}
		some, err := parseV3(about)
		if err != nil {
			return err
		}
		return writeProto(w, &openapi_v3.Document{Paths: some.Paths, Components: some.Components})
	})
}

func parseV3(document object) (*openapi_v3.Document, error) {
	root, err := documentNode(document)
	if err != nil {
		return nil, err
	}
	return openapi_v3.NewDocument(root, compiler.NewContextWithExtensions("$root", root, nil, nil))
}

func writeProto(w io.Writer, m proto.Message) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// inBatches calls write with some fragments at a time, as nodes by their sections.
func inBatches(fragments iter.Seq2[fragment, error], write func(sections object) error) error {
	sections, size := object{}, 0
	for f, err := range fragments {
		if err != nil {
			return err
		}
		section, has := sections[f.section].(*yaml.Node)
		if !has {
			section = &yaml.Node{Kind: yaml.MappingNode, Tag: mapTag}
			sections[f.section] = section
		}
		node, err := nodeOf(f.data)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		section.Content = append(section.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: stringTag, Value: f.name}, node)
		if size += len(f.data); size < batch {
			continue
		}
		if err := write(sections); err != nil {
			return err
		}
		sections, size = object{}, 0
	}
	if size == 0 {
		return nil
	}
	return write(sections)
}

// documentNode returns a document as a node; members may be nodes already, and
// objects of such.
func documentNode(document object) (*yaml.Node, error) {
	root := &yaml.Node{Kind: yaml.MappingNode, Tag: mapTag}
	for _, name := range slices.Sorted(maps.Keys(document)) {
		var node *yaml.Node
		var err error
		switch member := document[name].(type) {
		case *yaml.Node:
			node = member
		case object:
			node, err = documentNode(member)
		default:
			var data []byte
			if data, err = json.Marshal(member); err == nil {
				node, err = nodeOf(data)
			}
		}
		if err != nil {
			return nil, err
		}
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: stringTag, Value: name}, node)
	}
	return root, nil
}
