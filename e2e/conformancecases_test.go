package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// conformanceCase is a push and what must come of it.
type conformanceCase struct {
	name, key string
	file      string
	sums      sums
	fields    map[string]any // of the request, beyond file and destination
	// What the object must have. The content type is not compared where it is "".
	contentType    string
	metadata, tags map[string]string
}

// conformanceCases are the cases, with files for them.
func conformanceCases(t testing.TB) (cases []conformanceCase) {
	t.Helper()
	add := func(c conformanceCase, size int64) {
		// The name decides the bytes, so no object can pass for another.
		c.file = makeFile(t, fmt.Sprintf("%d.dat", len(cases)), size)
		var err error
		if c.sums, err = sumsOf(c.file); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	type sized struct {
		name string
		size int64
	}
	sizes := []sized{
		{"0 bytes", 0}, {"1 byte", 1}, {"all that one request carries, less one", oneRequest - 1}, {"all that one request carries", oneRequest},
		{"one more", oneRequest + 1}, {"five parts", 5 * partSize},
	}
	if full() {
		sizes = append(sizes, sized{"100 MB", 100_000_000})
	}
	for _, s := range sizes { // with their content types by the extension
		add(conformanceCase{name: s.name, key: "sizes/" + s.name + ".fits", contentType: "image/fits"}, s.size)
	}
	for _, key := range oddKeys {
		name := fmt.Sprintf("key %+q", key) // which tells NFC from NFD
		if len(key) > 100 {
			name = fmt.Sprintf("key of %d bytes", len(key))
		}
		add(conformanceCase{name: name, key: key}, 1000)
	}
	// In parts the store names the key in its answers. The last three keys
	// cannot stand within another.
	add(conformanceCase{name: "odd keys in one, parts", key: "parts/" + strings.Join(oddKeys[:len(oddKeys)-3], "/")}, oneRequest+3)
	metadata := map[string]string{"exposure": "42", "raft": "R22 of 25"}
	tags := map[string]string{"night": "2026-11-23", "kind": "bias + dark @ 20:00"}
	for _, s := range []sized{{"one request", 2000}, {"parts", oneRequest + 2}} {
		add(conformanceCase{
			name: "properties, " + s.name, key: "properties/" + s.name + ".fits",
			fields:      map[string]any{"content_type": "image/x-e2e", "storage_class": "STANDARD", "metadata": metadata, "tags": tags},
			contentType: "image/x-e2e", metadata: metadata, tags: tags,
		}, s.size)
	}
	return cases
}

// oddKeys are keys that something on the way may take for something else.
var oddKeys = []string{
	"with  two spaces", " space first and last ", "plus+plus", "percent%41%2F%", "a=b&c?d#e;f,g:h@i$j", "~!*'()", `"<>[]{}|\^` + "`",
	"caf\u00e9", "cafe\u0301", // NFC and NFD: two keys
	"\u6587/\U0001f52d", "x//y", "./dot",
	"a/../b", "slash at the end/", strings.Repeat("0123456789/", 93) + "x",
}

// carriedFile is a file that one operation carries to the store.
type carriedFile struct {
	operation string // PutObject, or UploadPart
	what      string // is compared then: object, or parts
	file      string
	sums      sums
	older     string // another file, for an object of before
}

// carriedFiles makes one for each operation.
func carriedFiles(t testing.TB) (files []carriedFile) {
	t.Helper()
	older := makeFile(t, "older.dat", 5000)
	files = []carriedFile{
		{operation: "PutObject", what: "object", file: makeFile(t, "one.dat", 100_000), older: older},
		{operation: "UploadPart", what: "parts", file: makeFile(t, "parts.dat", oneRequest+100_000), older: older},
	}
	for i := range files {
		var err error
		if files[i].sums, err = sumsOf(files[i].file); err != nil {
			t.Fatal(err)
		}
	}
	return files
}
