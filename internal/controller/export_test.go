// SPDX-License-Identifier: Apache-2.0

package controller

// Listed are the names of all controllers.
func Listed() (names []string) {
	for _, of := range [][]entry{list, cloudList} {
		for _, e := range of {
			names = append(names, e.name)
		}
	}
	return names
}
