package uploader

import (
	"crypto/md5"
	"crypto/sha256"
	"io"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/crc64nvme"

	"github.com/lsst-dm/s3daemon/push"
)

// passes counts how often a text was read from its start.
type passes struct {
	*strings.Reader
	n int
}

func (p *passes) ReadAt(b []byte, at int64) (int, error) {
	if at == 0 {
		p.n++
	}
	return p.Reader.ReadAt(b, at)
}

// TestDigests: what is known already is not computed again, and all that is
// wanted takes one pass.
func TestDigests(t *testing.T) {
	text := &passes{Reader: strings.NewReader("123456789")}
	content := io.NewSectionReader(text, 0, text.Size())
	var d digests
	for i, step := range []struct {
		wanted, have algorithms
		passes       int
	}{
		{withCRC, withCRC, 1},
		{withCRC, withCRC, 1},
		{withCRC | withMD5 | withSHA256, withCRC | withMD5 | withSHA256, 2},
		{withMD5, withCRC | withMD5 | withSHA256, 2},
	} {
		if err := d.compute(content, step.wanted); err != nil || d.have != step.have || text.n != step.passes {
			t.Errorf("step %d: %v, have %v after %d passes, want %v after %d", i, err, d.have, text.n, step.have, step.passes)
		}
	}
	if d.crc64nvme() != "rosUhgp5mIg=" || d.md5 != md5.Sum([]byte("123456789")) || d.sha256 != sha256.Sum256([]byte("123456789")) {
		t.Errorf("%+v", d)
	}
	if err := new(digests).compute(io.NewSectionReader(text, 0, 10), withCRC); err != io.ErrUnexpectedEOF {
		t.Errorf("of a text that is cut short: %v", err)
	}
}

// TestJudge has what an answer shows, for all that it can say.
func TestJudge(t *testing.T) {
	content := []byte("123456789")
	known := digests{have: withCRC, crc: crc64nvme.Checksum(content), md5: md5.Sum(content)}
	const (
		ourCRC, otherCRC = "rosUhgp5mIg=", "AAAAAAAAAAA="
		ourMD5, otherMD5 = "25f9e794323b453885f5181f1b624d0b", "25f9e794323b453885f5181f1b624d0c"
		noMD5            = "25f9e794323b453885f5181f1b624d0b-1"
	)
	crcShown, md5Shown := verdict{proof: proof{"crc64nvme", byDaemon}}, verdict{proof: proof{"md5", byDaemon}}
	md5Taken, shaTaken := verdict{proof: proof{"md5", byStore}}, verdict{proof: proof{"sha256", byStore}}
	other := verdict{differs: &difference{"CRC64NVME", ourCRC, otherCRC}}
	otherTag := verdict{differs: &difference{"MD5", ourMD5, otherMD5}}
	several := verdict{differs: &difference{"MD5", ourMD5, ourMD5 + ", x"}}
	ask, nothing := verdict{needsMD5: true}, verdict{}
	for _, tc := range []struct {
		name      string
		says      claim
		crc, both verdict // where the request carried a CRC64NVME, and an MD5 too
		md5, sha  verdict // an MD5 alone; a CRC64NVME and a signed SHA-256
		doubted   bool
	}{
		{"our CRC and our MD5", claim{ourCRC, ourMD5, false}, crcShown, crcShown, crcShown, crcShown, false},
		{"our CRC and an ETag that is none", claim{ourCRC, noMD5, false}, crcShown, crcShown, crcShown, crcShown, false},
		{"our CRC and another MD5", claim{ourCRC, otherMD5, false}, crcShown, otherTag, otherTag, crcShown, false},
		{"our CRC, encrypted", claim{ourCRC, otherMD5, true}, crcShown, crcShown, crcShown, crcShown, false},
		{"another CRC and our MD5", claim{otherCRC, ourMD5, false}, other, other, other, other, false},
		{"another CRC alone", claim{otherCRC, "", false}, other, other, other, other, false},
		{"our MD5", claim{"", ourMD5, false}, ask, md5Shown, md5Shown, ask, false},
		{"our MD5 in capitals", claim{"", "25F9E794323B453885F5181F1B624D0B", false}, ask, md5Shown, md5Shown, ask, false},
		{"another MD5", claim{"", otherMD5, false}, ask, otherTag, otherTag, ask, false},
		{"another MD5, encrypted", claim{"", otherMD5, true}, nothing, md5Taken, md5Taken, shaTaken, false},
		{"several ETags", claim{"", ourMD5 + ", x", false}, ask, several, several, ask, false},
		{"our CRC and several ETags, encrypted", claim{ourCRC, ourMD5 + ", x", true}, ask, several, several, ask, false},
		{"an ETag that is no MD5", claim{"", "x", false}, nothing, md5Taken, md5Taken, shaTaken, false},
		{"an ETag of parts", claim{"", noMD5, false}, nothing, md5Taken, md5Taken, shaTaken, false},
		{"our CRC and our MD5, doubted", claim{ourCRC, ourMD5, false}, ask, md5Shown, md5Shown, ask, true},
		{"our CRC and another MD5, doubted", claim{ourCRC, otherMD5, false}, ask, otherTag, otherTag, ask, true},
		{"another CRC and our MD5, doubted", claim{otherCRC, ourMD5, false}, other, other, other, other, true},
		{"our CRC, encrypted, doubted", claim{ourCRC, otherMD5, true}, nothing, md5Taken, md5Taken, shaTaken, true},
	} {
		for _, carried := range []struct {
			name string
			what algorithms
			want verdict
		}{{"CRC", withCRC, tc.crc}, {"CRC and MD5", withCRC | withMD5, tc.both}, {"MD5", withMD5, tc.md5}, {"SHA-256", withCRC | withSHA256, tc.sha}} {
			ours := known
			ours.have |= carried.what
			got := judge(&ours, carried.what, tc.says, !tc.doubted)
			if got.proof != carried.want.proof || got.needsMD5 != carried.want.needsMD5 || (got.differs == nil) != (carried.want.differs == nil) ||
				got.differs != nil && *got.differs != *carried.want.differs {
				t.Errorf("%s, to a request with %s: %+v, want %+v", tc.name, carried.name, got, carried.want)
			}
			if got.needsMD5 { // which then decides
				ours.have |= withMD5
				if again := judge(&ours, carried.what, tc.says, !tc.doubted); (again.proof == md5Shown.proof) == (again.differs != nil) {
					t.Errorf("%s, to a request with %s: with the MD5 known, %+v", tc.name, carried.name, again)
				}
			}
		}
	}
}

// TestJudgeObject has what an answer shows of an object of two parts, for all
// that it can say.
func TestJudgeObject(t *testing.T) {
	const (
		ourCRC, otherCRC = "rosUhgp5mIg=", "AAAAAAAAAAA="
		ourTag, otherTag = "d8399932ce6023ac3365f50fbbcde132-2", "25f9e794323b453885f5181f1b624d0b-2"
	)
	for _, tc := range []struct {
		name    string
		says    claim
		doubted bool
		auto    string // "ours", the algorithm by which it is another, or empty
		crc     string // with crc64nvme
	}{
		{"nothing", claim{}, false, "", ""},
		{"our CRC", claim{crc64nvme: ourCRC}, false, "ours", "ours"},
		{"our CRC, doubted", claim{crc64nvme: ourCRC}, true, "", "ours"},
		{"another CRC and our ETag", claim{crc64nvme: otherCRC, etag: ourTag}, false, "CRC64NVME", "CRC64NVME"},
		{"our CRC and another ETag", claim{crc64nvme: ourCRC, etag: otherTag}, false, "ETag", "ours"},
		{"our CRC and another ETag, encrypted", claim{crc64nvme: ourCRC, etag: otherTag, opaque: true}, false, "ours", "ours"},
		{"our CRC and two ETags", claim{crc64nvme: ourCRC, etag: ourTag + ", x"}, false, "ETag", "ours"},
		{"our ETag", claim{etag: ourTag}, false, "ours", "ours"},
		{"our ETag in capitals", claim{etag: strings.ToUpper(ourTag)}, false, "ours", "ours"},
		{"another ETag", claim{etag: otherTag}, false, "ETag", "ETag"},
		{"another ETag, encrypted", claim{etag: otherTag, opaque: true}, false, "", ""},
		{"an ETag of other parts", claim{etag: otherTag[:33] + "3"}, false, "", ""},
		{"an ETag of twelve parts", claim{etag: otherTag[:33] + "12"}, false, "", ""},
		{"the MD5 of the whole", claim{etag: otherTag[:32]}, false, "", ""},
		{"two ETags, encrypted", claim{etag: ourTag + ", x", opaque: true}, false, "ETag", "ETag"},
	} {
		for mode, want := range map[Checksum]string{ChecksumAuto: tc.auto, ChecksumCRC64NVME: tc.crc} {
			d := &delivery{up: &Uploader{checksum: mode}}
			shown, differs := d.judgeObject(claim{crc64nvme: ourCRC, etag: ourTag}, tc.says, !tc.doubted || mode == ChecksumCRC64NVME)
			got := ""
			switch {
			case differs != nil && shown:
				got = "both"
			case differs != nil:
				got = differs.algorithm
			case shown:
				got = "ours"
			}
			if got != want {
				t.Errorf("%s, with %s: %q, want %q", tc.name, mode, got, want)
			}
		}
		d := &delivery{up: &Uploader{}} // where the parts' ETags are no MD5s
		if _, differs := d.judgeObject(claim{crc64nvme: ourCRC}, claim{etag: tc.says.etag}, true); differs != nil != contradictory(tc.says.etag) {
			t.Errorf("%s, of parts whose ETags tell nothing: %+v", tc.name, differs)
		}
	}
}

// TestLearning: an operation is known to verify after an answer with our value,
// and doubted for good after one whose ETag contradicts it, or after one without
// any when others had one.
func TestLearning(t *testing.T) {
	ours := digests{have: withCRC, crc: 1}
	contradicts, agrees := verdict{differs: &difference{"MD5", "x", "y"}}, verdict{proof: proof{"crc64nvme", byDaemon}}
	type step struct {
		says  string
		shows verdict
		now   uint32
	}
	our, other := crcText(1), crcText(2)
	for i, steps := range [][]step{
		{{"", verdict{}, unknown}, {"", contradicts, unknown}, {other, contradicts, unknown}, {our, agrees, known}, {other, contradicts, known}, {our, agrees, known}, {"", verdict{}, doubted}, {our, agrees, doubted}},
		{{our, contradicts, doubted}, {our, agrees, doubted}},
		{{our, agrees, known}, {our, contradicts, doubted}, {"", verdict{}, doubted}},
	} {
		var operation trust
		for j, step := range steps {
			if operation.learn(&ours, claim{crc64nvme: step.says}, step.shows); operation.Load() != step.now {
				t.Errorf("%d, step %d, %q: %d, want %d", i, j, step.says, operation.Load(), step.now)
			}
		}
	}
}

// TestBelieves: who wants CRC64NVME alone gets that.
func TestBelieves(t *testing.T) {
	for _, mode := range modes {
		for state, want := range []bool{unknown: true, known: true, doubted: mode == ChecksumCRC64NVME} {
			var operation trust
			operation.Store(uint32(state))
			if got := mode.believes(&operation); got != want {
				t.Errorf("%s, %d: %v", mode, state, got)
			}
		}
	}
}

func TestCarries(t *testing.T) {
	for mode, want := range map[Checksum][2]algorithms{ // where the operation is not known to verify, and where it is
		ChecksumAuto:      {withCRC | withMD5, withCRC},
		"":                {withCRC | withMD5, withCRC},
		ChecksumCRC64NVME: {withCRC, withCRC},
		ChecksumMD5:       {withMD5, withMD5},
		ChecksumSHA256:    {withCRC | withSHA256, withCRC | withSHA256},
	} {
		if got := [2]algorithms{mode.carries(false), mode.carries(true)}; got != want {
			t.Errorf("%q: %v, want %v", mode, got, want)
		}
	}
}

func TestFormsOfETags(t *testing.T) {
	const sum = "25f9e794323b453885f5181f1b624d0b"
	for etag, want := range map[string][2]bool{ // of a body, of parts
		sum: {true, false}, sum + "-1": {false, true}, sum + "-10000": {false, true}, "": {}, sum[1:]: {}, sum + "0": {}, "x" + sum[1:]: {},
		sum + "-": {}, sum + "-x": {}, sum + "-1-2": {}, "-1": {}, sum[2:] + "-1": {},
	} {
		if got := [2]bool{isMD5(etag), isMD5OfParts(etag)}; got != want {
			t.Errorf("%q: %v, want %v", etag, got, want)
		}
	}
}

// TestWholeCRC: only what is said of the whole object can be compared.
func TestWholeCRC(t *testing.T) {
	value := "rosUhgp5mIg="
	for kind, want := range map[types.ChecksumType]string{"": value, types.ChecksumTypeFullObject: value, types.ChecksumTypeComposite: ""} {
		if got := aws.ToString(wholeCRC(&value, kind)); got != want {
			t.Errorf("of the kind %q: %q, want %q", kind, got, want)
		}
	}
	if got := wholeCRC(nil, ""); got != nil {
		t.Errorf("where there is none: %q", *got)
	}
}

// TestVerifiedParts has what the receipt says where parts were shown in
// different ways.
func TestVerifiedParts(t *testing.T) {
	part := func(content, algorithm, by string) sentPart {
		p := sentPart{size: int64(len(content)), proof: proof{algorithm, by}}
		p.ours = digests{have: withCRC, crc: crc64nvme.Checksum([]byte(content)), md5: md5.Sum([]byte(content))}
		return p
	}
	const whole = "rosUhgp5mIg="
	for _, tc := range []struct {
		parts []sentPart
		want  push.Verified
	}{
		{[]sentPart{part("1234", "crc64nvme", byDaemon), part("56789", "crc64nvme", byDaemon)}, push.Verified{What: "parts", Algorithm: "crc64nvme", By: "daemon", Value: whole}},
		{[]sentPart{part("1234", "md5", byDaemon), part("56789", "md5", byDaemon)}, push.Verified{What: "parts", Algorithm: "md5", By: "daemon", Value: "d8399932ce6023ac3365f50fbbcde132-2"}},
		{[]sentPart{part("1234", "md5", byDaemon), part("56789", "crc64nvme", byDaemon)}, push.Verified{What: "parts", Algorithm: "crc64nvme+md5", By: "daemon", Value: whole}},
		{[]sentPart{part("1234", "crc64nvme", byDaemon), part("56789", "md5", byStore)}, push.Verified{What: "parts", Algorithm: "crc64nvme+md5", By: "store", Value: whole}},
	} {
		if got := verifiedParts(tc.parts); *got != tc.want {
			t.Errorf("%+v, want %+v", *got, tc.want)
		}
	}
}

func TestMediaType(t *testing.T) {
	for _, tc := range []struct{ key, file, want string }{
		{"a/b.fits", "/d/x", "image/fits"}, {"b.FITS.fz", "/d/x", "image/fits"}, {"b", "/d/x.json", "application/json"},
		{"b.unknown", "/d/x.csv", "text/csv"}, {"b.txt", "/d/x.csv", "text/plain"}, {"b", "/d.fits/x", defaultMediaType}, {"b.", "/d/x", defaultMediaType},
		{".gz", "/d/x", "application/gzip"}, {"a.tar.gz", "/d/x", "application/gzip"},
	} {
		if got := mediaType(tc.key, tc.file); got != tc.want {
			t.Errorf("%s from %s: %s, want %s", tc.key, tc.file, got, tc.want)
		}
	}
	for extension, media := range mediaTypes {
		if _, err := (push.Request{File: "/f", Destination: "s3://bucket/k", ContentType: media}).Check(); err != nil {
			t.Errorf("%s: %v", extension, err)
		}
	}
}
