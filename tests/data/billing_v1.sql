BEGIN TRANSACTION;
CREATE TABLE alarm (headend TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
    detail TEXT NOT NULL, first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL,
    times BIGINT NOT NULL, PRIMARY KEY (headend, kind, subject));
INSERT INTO "alarm" VALUES('he1','gap','aaaaaaaa-0000-4000-8000-000000000001:5','5 to 8 are gone',1772294400000,1772294400000,1);
INSERT INTO "alarm" VALUES('he1','conflict','M-1 active_import_total','revision 2 against 2, ids 5ae8f7de583267896fddd7ef9cc4ee7d fb2a5e60d080fb8453ac8cf524bd94fc',1772294400000,1772294400000,1);
CREATE TABLE conflict (
    meter TEXT NOT NULL, point TEXT NOT NULL, time_ms BIGINT NOT NULL, interval_s BIGINT NOT NULL,
    revision BIGINT NOT NULL, read_id TEXT NOT NULL, value TEXT, unit TEXT NOT NULL,
    status TEXT NOT NULL, verdict TEXT NOT NULL, flags TEXT NOT NULL, service_point TEXT NOT NULL,
    received_ms BIGINT NOT NULL, due_ms BIGINT, late INTEGER NOT NULL, final INTEGER NOT NULL,
    multiplier TEXT NOT NULL, side TEXT NOT NULL, evidence TEXT, headend TEXT NOT NULL,
    epoch TEXT NOT NULL, seq BIGINT NOT NULL, current_read_id TEXT NOT NULL,
    noticed_ms BIGINT NOT NULL,
    PRIMARY KEY (meter, point, time_ms, interval_s, read_id));
INSERT INTO "conflict" VALUES('M-1','active_import_total',1772294400000,0,2,'5ae8f7de583267896fddd7ef9cc4ee7d','12','kWh','actual','ok','','SP-1',1772294401500,NULL,0,0,'1','secondary',NULL,'he1','bbbbbbbb-0000-4000-8000-000000000002',4,'fb2a5e60d080fb8453ac8cf524bd94fc',1772294400000);
CREATE TABLE dead_letter (headend TEXT NOT NULL, hash TEXT NOT NULL, topic TEXT NOT NULL,
    code TEXT NOT NULL, reason TEXT NOT NULL, size BIGINT NOT NULL, beginning TEXT NOT NULL,
    first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL, times BIGINT NOT NULL,
    PRIMARY KEY (headend, hash));
INSERT INTO "dead_letter" VALUES('he1','ef875a1705a5fdac206be996f4dc1f726ea6b68861eb741c37def7277f179e37','meter/v1/he1/feed/billing','not_json','not JSON: JSON is malformed: invalid character (byte 0)',4,'6a756e6b',1772294400000,1772294400000,1);
CREATE TABLE event (headend TEXT NOT NULL, event_id TEXT NOT NULL, epoch TEXT NOT NULL,
    seq BIGINT NOT NULL, kind TEXT NOT NULL, at_ms BIGINT NOT NULL, fields TEXT NOT NULL,
    PRIMARY KEY (headend, event_id));
INSERT INTO "event" VALUES('he1','4bd69d5280170765f17e1acd75a5a58a','bbbbbbbb-0000-4000-8000-000000000002',3,'meter_exchange',1772294400000,'{"by": "fitter", "new_address": "000000000002", "new_initial": {"active_import_total": "0"}, "new_meter": "M-2", "old_final": {"active_import_total": "9"}, "old_meter": "M-1", "reason": "test", "service_point": "SP-1"}');
CREATE TABLE exchange (headend TEXT NOT NULL, epoch TEXT NOT NULL, ref TEXT NOT NULL,
    request TEXT NOT NULL, reply TEXT, bus TEXT NOT NULL, received_ms BIGINT NOT NULL,
    attempts BIGINT NOT NULL, software TEXT NOT NULL, PRIMARY KEY (headend, epoch, ref));
INSERT INTO "exchange" VALUES('he1','aaaaaaaa-0000-4000-8000-000000000001','x1','FEFE68','68AA16','street-a',1772294400000,1,'headend test');
INSERT INTO "exchange" VALUES('he1','aaaaaaaa-0000-4000-8000-000000000001','x2','FEFE68','68AA16','street-a',1772294400000,1,'headend test');
INSERT INTO "exchange" VALUES('he1','aaaaaaaa-0000-4000-8000-000000000001','x3','FEFE68','68AA16','street-a',1772294400000,1,'headend test');
INSERT INTO "exchange" VALUES('he1','aaaaaaaa-0000-4000-8000-000000000001','x4','FEFE68','68AA16','street-a',1772294400000,1,'headend test');
INSERT INTO "exchange" VALUES('he1','bbbbbbbb-0000-4000-8000-000000000002','x1','FEFE68','68AA16','street-a',1772294400000,1,'headend test');
CREATE TABLE feed_cursor (headend TEXT NOT NULL, epoch TEXT NOT NULL,
    ordinal INTEGER NOT NULL, through_seq BIGINT NOT NULL, updated_ms BIGINT NOT NULL,
    PRIMARY KEY (headend, epoch));
INSERT INTO "feed_cursor" VALUES('he1','aaaaaaaa-0000-4000-8000-000000000001',1,8,1772294400000);
INSERT INTO "feed_cursor" VALUES('he1','bbbbbbbb-0000-4000-8000-000000000002',2,4,1772294400000);
CREATE TABLE gap (headend TEXT NOT NULL, epoch TEXT NOT NULL, first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL, reason TEXT NOT NULL, noticed_ms BIGINT NOT NULL,
    PRIMARY KEY (headend, epoch, first_seq));
INSERT INTO "gap" VALUES('he1','aaaaaaaa-0000-4000-8000-000000000001',5,8,'resume_refused',1772294400000);
CREATE TABLE metering (service_point TEXT NOT NULL, meter TEXT NOT NULL,
    PRIMARY KEY (service_point, meter));
INSERT INTO "metering" VALUES('he1-SP-0','he1-M-0');
INSERT INTO "metering" VALUES('he1-SP-1','he1-M-1');
INSERT INTO "metering" VALUES('he1-SP-2','he1-M-2');
INSERT INTO "metering" VALUES('SP-1','M-1');
CREATE TABLE reading (
    meter TEXT NOT NULL, point TEXT NOT NULL, time_ms BIGINT NOT NULL, interval_s BIGINT NOT NULL,
    revision BIGINT NOT NULL, read_id TEXT NOT NULL, value TEXT, unit TEXT NOT NULL,
    status TEXT NOT NULL, verdict TEXT NOT NULL, flags TEXT NOT NULL, service_point TEXT NOT NULL,
    received_ms BIGINT NOT NULL, due_ms BIGINT, late INTEGER NOT NULL, final INTEGER NOT NULL,
    multiplier TEXT NOT NULL, side TEXT NOT NULL, evidence TEXT, headend TEXT NOT NULL,
    epoch TEXT NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (meter, point, time_ms, interval_s));
INSERT INTO "reading" VALUES('he1-M-1','active_import_total',1772294460000,0,1,'7333e6d55cdf1d3e982a18072776a73e','1.25','kWh','actual','ok','','he1-SP-1',1772294461500,NULL,0,0,'1','secondary','x1','he1','aaaaaaaa-0000-4000-8000-000000000001',1);
INSERT INTO "reading" VALUES('he1-M-2','active_import_total',1772294520000,0,1,'c2b680d85113d42b0479929505a70f89','2.25','kWh','actual','ok','','he1-SP-2',1772294521500,NULL,0,0,'1','secondary','x2','he1','aaaaaaaa-0000-4000-8000-000000000001',2);
INSERT INTO "reading" VALUES('he1-M-0','active_import_total',1772294580000,0,1,'88c0e93036b308122ca2bcdca830c852','3.25','kWh','actual','ok','','he1-SP-0',1772294581500,NULL,0,0,'1','secondary','x3','he1','aaaaaaaa-0000-4000-8000-000000000001',3);
INSERT INTO "reading" VALUES('he1-M-1','active_import_total',1772294640000,0,1,'2b712147a9f42f7dd749b02a51f395bd','4.25','kWh','actual','ok','','he1-SP-1',1772294641500,NULL,0,0,'1','secondary','x4','he1','aaaaaaaa-0000-4000-8000-000000000001',4);
INSERT INTO "reading" VALUES('M-1','active_import_total',1772294400000,0,2,'fb2a5e60d080fb8453ac8cf524bd94fc','11','kWh','actual','ok','','SP-1',1772294401500,NULL,0,0,'1','secondary',NULL,'he1','bbbbbbbb-0000-4000-8000-000000000002',2);
CREATE TABLE reading_history (
    meter TEXT NOT NULL, point TEXT NOT NULL, time_ms BIGINT NOT NULL, interval_s BIGINT NOT NULL,
    revision BIGINT NOT NULL, read_id TEXT NOT NULL, value TEXT, unit TEXT NOT NULL,
    status TEXT NOT NULL, verdict TEXT NOT NULL, flags TEXT NOT NULL, service_point TEXT NOT NULL,
    received_ms BIGINT NOT NULL, due_ms BIGINT, late INTEGER NOT NULL, final INTEGER NOT NULL,
    multiplier TEXT NOT NULL, side TEXT NOT NULL, evidence TEXT, headend TEXT NOT NULL,
    epoch TEXT NOT NULL, seq BIGINT NOT NULL, superseded_by TEXT NOT NULL,
    PRIMARY KEY (meter, point, time_ms, interval_s, read_id));
INSERT INTO "reading_history" VALUES('M-1','active_import_total',1772294400000,0,1,'77f7aee8e1e7df72b8ef0d776bfc8972','10','kWh','actual','ok','','SP-1',1772294401500,NULL,0,0,'1','secondary','x1','he1','bbbbbbbb-0000-4000-8000-000000000002',1,'fb2a5e60d080fb8453ac8cf524bd94fc');
CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY, applied_ms BIGINT NOT NULL, software TEXT NOT NULL);
INSERT INTO "schema_version" VALUES(1,1772294400000,'test');
CREATE INDEX reading_by_id ON reading (read_id);
CREATE INDEX reading_history_by_id ON reading_history (read_id);
CREATE INDEX event_by_kind ON event (kind, at_ms);
COMMIT;
