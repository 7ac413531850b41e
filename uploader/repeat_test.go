package uploader

import (
	"crypto/sha256"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

// TestHashOfRequest pins what the journal keeps beside an idempotency key: a
// later version must know the requests of an earlier one again. It also tells
// apart what was added since.
func TestHashOfRequest(t *testing.T) {
	plain := push.Request{File: "/a", Destination: "s3://b/k", Metadata: map[string]string{"y": "2", "x": "1"}}
	if want := sha256.Sum256([]byte(`{"/a" "s3://b/k" "" "" map["x":"1" "y":"2"] map[] ""}`)); hashOf(plain) != want {
		t.Error("the hash of a request is another than it was")
	}
	encrypted, byKey := plain, plain
	encrypted.Encryption = "aws:kms"
	byKey.Encryption, byKey.KMSKeyID = "aws:kms", "key"
	if hashOf(plain) == hashOf(encrypted) || hashOf(encrypted) == hashOf(byKey) || hashOf(plain) == hashOf(byKey) {
		t.Error("requests with different encryption have one hash")
	}
	no, yes := false, true
	said, only, onlyEncrypted := plain, plain, encrypted
	said.Overwrite, only.Overwrite, onlyEncrypted.Overwrite = &yes, &no, &no
	if hashOf(said) != hashOf(plain) {
		t.Error("a request that says the default has another hash")
	}
	if hashOf(only) == hashOf(plain) || hashOf(onlyEncrypted) == hashOf(encrypted) || hashOf(only) == hashOf(onlyEncrypted) {
		t.Error("a request that may not overwrite has the hash of another")
	}
}
