// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"encoding/json"
	"io"
	"iter"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
)

// Documents in the protobuf form that older clients read are written as messages
// one after another, which are merged by who reads them as one: what parses the
// JSON takes thirty times its memory.

// batch is how much JSON is parsed at once, in bytes.
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
	data, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	return openapi_v2.ParseDocument(data)
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
	data, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	return openapi_v3.ParseDocument(data)
}

func writeProto(w io.Writer, m proto.Message) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// inBatches calls write with some fragments at a time, by their sections and names.
func inBatches(fragments iter.Seq2[fragment, error], write func(sections object) error) error {
	sections, size := object{}, 0
	for f, err := range fragments {
		if err != nil {
			return err
		}
		if sections[f.section] == nil {
			sections[f.section] = map[string]json.RawMessage{}
		}
		sections[f.section].(map[string]json.RawMessage)[f.name] = f.data
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
