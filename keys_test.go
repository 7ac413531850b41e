package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsst-dm/s3daemon/uploader"
)

// TestKeys has keys in variables and in files, and the mistakes that can be made
// with both. No error may have a key in it.
func TestKeys(t *testing.T) {
	const secret = "sEcReT/+="
	dir := t.TempDir()
	in := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	id, key, token := in("id", "AKIA"+secret+"\n"), in("key", secret+"\r\n"), in("token", secret)
	for _, tc := range []struct {
		name, says string
		env        map[string]string
		want       uploader.Keys // where there is no mistake
	}{
		{"none", "", nil, uploader.Keys{}},
		{"variables", "", map[string]string{"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": secret}, uploader.Keys{}},
		{"newline in the id", "AWS_ACCESS_KEY_ID: has white space", map[string]string{"AWS_ACCESS_KEY_ID": "AKIA" + secret + "\n", "AWS_SECRET_ACCESS_KEY": secret}, uploader.Keys{}},
		{"newline in the secret", "AWS_SECRET_ACCESS_KEY: has white space", map[string]string{"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": secret + "\n"}, uploader.Keys{}},
		{"no secret", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: one is set", map[string]string{"AWS_ACCESS_KEY_ID": secret}, uploader.Keys{}},
		{"no id", "one is set and the other is not", map[string]string{"AWS_SECRET_ACCESS_KEY": secret}, uploader.Keys{}},

		{"files", "", map[string]string{"AWS_ACCESS_KEY_ID_FILE": id, "AWS_SECRET_ACCESS_KEY_FILE": key, "AWS_SESSION_TOKEN_FILE": token}, uploader.Keys{IDFile: id, SecretFile: key, TokenFile: token}},
		{"one in a file", "", map[string]string{"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY_FILE": key}, uploader.Keys{ID: "AKIA", SecretFile: key}},
		{"both", "AWS_SECRET_ACCESS_KEY_FILE: AWS_SECRET_ACCESS_KEY is set as well", map[string]string{"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": secret, "AWS_SECRET_ACCESS_KEY_FILE": key}, uploader.Keys{}},
		{"half in a file", "AWS_ACCESS_KEY_ID_FILE and AWS_SECRET_ACCESS_KEY_FILE: one is set", map[string]string{"AWS_SECRET_ACCESS_KEY_FILE": key}, uploader.Keys{}},
		{"a token alone", "AWS_SESSION_TOKEN_FILE: it is set, and neither", map[string]string{"AWS_SESSION_TOKEN_FILE": token}, uploader.Keys{}},
		{"no such file", "AWS_SECRET_ACCESS_KEY_FILE: the file that it names cannot be looked at: no such file", map[string]string{"AWS_ACCESS_KEY_ID_FILE": id, "AWS_SECRET_ACCESS_KEY_FILE": filepath.Join(dir, "none")}, uploader.Keys{}},
		{"empty", "is empty", map[string]string{"AWS_ACCESS_KEY_ID_FILE": id, "AWS_SECRET_ACCESS_KEY_FILE": in("empty", "\n")}, uploader.Keys{}},
		{"white space", "holds white space", map[string]string{"AWS_ACCESS_KEY_ID_FILE": id, "AWS_SECRET_ACCESS_KEY_FILE": in("space", secret+" "+secret)}, uploader.Keys{}},
		{"two lines", "holds white space", map[string]string{"AWS_ACCESS_KEY_ID_FILE": id, "AWS_SECRET_ACCESS_KEY_FILE": in("lines", secret+"\n\n")}, uploader.Keys{}},
		{"too long", "has more than", map[string]string{"AWS_ACCESS_KEY_ID_FILE": id, "AWS_SECRET_ACCESS_KEY_FILE": in("long", strings.Repeat(secret, 10_000))}, uploader.Keys{}},
		{"a directory", "is not a regular file", map[string]string{"AWS_ACCESS_KEY_ID_FILE": id, "AWS_SECRET_ACCESS_KEY_FILE": dir}, uploader.Keys{}},
		{"a value that looks like a path", "AWS_SECRET_ACCESS_KEY_FILE: the file that it names", map[string]string{"AWS_ACCESS_KEY_ID_FILE": id, "AWS_SECRET_ACCESS_KEY_FILE": "/" + secret}, uploader.Keys{}},
		{"a value for a path", "AWS_SECRET_ACCESS_KEY_FILE: it is not the absolute path", map[string]string{"AWS_ACCESS_KEY_ID_FILE": id, "AWS_SECRET_ACCESS_KEY_FILE": secret}, uploader.Keys{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := environment{KeyIDFile: tc.env["AWS_ACCESS_KEY_ID_FILE"], SecretFile: tc.env["AWS_SECRET_ACCESS_KEY_FILE"], SessionFile: tc.env["AWS_SESSION_TOKEN_FILE"]}
			got, err := e.keys(func(name string) string { return tc.env[name] })
			switch {
			case tc.says == "" && (err != nil || got != tc.want):
				t.Errorf("%+v, %v", got, err)
			case tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), secret)):
				t.Errorf("error %v, want one with %q", err, tc.says)
			}
		})
	}
}
