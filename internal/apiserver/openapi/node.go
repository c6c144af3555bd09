// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// The parser of the protobuf forms works on nodes of YAML. Those of JSON are made
// here: a parser of YAML takes most of the time that all of it needs.

// Tags of nodes that are made here.
const (
	mapTag    = "!!map"
	stringTag = "!!str"
)

// nodeOf returns what valid JSON is as a node, as a parser of YAML has it but for
// lines and styles.
func nodeOf(data []byte) (*yaml.Node, error) {
	p := nodeParser{data}
	return p.value()
}

type nodeParser struct{ rest []byte }

// skip removes white space and returns what comes then, 0 at the end.
func (p *nodeParser) skip() byte {
	p.rest = bytes.TrimLeft(p.rest, " \t\r\n")
	if len(p.rest) == 0 {
		return 0
	}
	return p.rest[0]
}

func (p *nodeParser) value() (*yaml.Node, error) {
	switch p.skip() {
	case '{':
		return p.list(&yaml.Node{Kind: yaml.MappingNode, Tag: mapTag}, '}')
	case '[':
		return p.list(&yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}, ']')
	case '"':
		return p.string()
	}
	end := bytes.IndexAny(p.rest, ",]} \t\r\n")
	if end < 0 {
		end = len(p.rest)
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: string(p.rest[:end])}
	p.rest = p.rest[end:]
	switch n.Value {
	case "":
		return nil, fmt.Errorf("JSON ends where a value is due")
	case "true", "false":
		n.Tag = "!!bool"
	case "null":
		n.Tag = "!!null"
	default:
		n.Tag = numberTag(n.Value)
	}
	return n, nil
}

func numberTag(text string) string {
	if _, err := strconv.ParseInt(text, 10, 64); err == nil {
		return "!!int"
	}
	if _, err := strconv.ParseUint(text, 10, 64); err == nil {
		return "!!int"
	}
	return "!!float"
}

// list adds the values to n that follow an opening bracket, and keys among them.
func (p *nodeParser) list(n *yaml.Node, end byte) (*yaml.Node, error) {
	p.rest = p.rest[1:]
	for {
		switch p.skip() {
		case end:
			p.rest = p.rest[1:]
			return n, nil
		case ',', ':':
			p.rest = p.rest[1:]
			continue
		}
		member, err := p.value()
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, member)
	}
}

func (p *nodeParser) string() (*yaml.Node, error) {
	escaped := false
	for i := 1; i < len(p.rest); i++ {
		switch p.rest[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			n := &yaml.Node{Kind: yaml.ScalarNode, Tag: stringTag}
			text := p.rest[:i+1]
			p.rest = p.rest[i+1:]
			if !escaped {
				n.Value = string(text[1:i])
				return n, nil
			}
			return n, json.Unmarshal(text, &n.Value)
		}
	}
	return nil, fmt.Errorf("JSON ends in a string")
}
