BEGIN TRANSACTION;
CREATE TABLE alarm (headend TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
    detail TEXT NOT NULL, first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL,
    times BIGINT NOT NULL, PRIMARY KEY (headend, kind, subject));
INSERT INTO "alarm" VALUES('he1','conflict','M-5 active_import_total','revision 1 against 1, ids 1afbf0d90e559e0a833e2ce20142dd33 44e9ac958247b9c8f5a5540d05de9b56',1772294400000,1772294400000,1);
CREATE TABLE conflict (
    meter TEXT NOT NULL, point TEXT NOT NULL, time_ms BIGINT NOT NULL, interval_s BIGINT NOT NULL,
    revision BIGINT NOT NULL, read_id TEXT NOT NULL, value TEXT, unit TEXT NOT NULL,
    status TEXT NOT NULL, verdict TEXT NOT NULL, flags TEXT NOT NULL, service_point TEXT NOT NULL,
    received_ms BIGINT NOT NULL, due_ms BIGINT, late INTEGER NOT NULL, final INTEGER NOT NULL,
    multiplier TEXT NOT NULL, side TEXT NOT NULL, evidence TEXT, headend TEXT NOT NULL,
    epoch TEXT NOT NULL, seq BIGINT NOT NULL, current_read_id TEXT NOT NULL,
    noticed_ms BIGINT NOT NULL,
    PRIMARY KEY (meter, point, time_ms, interval_s, read_id));
INSERT INTO "conflict" VALUES('M-5','active_import_total',1772294400000,0,1,'1afbf0d90e559e0a833e2ce20142dd33','2.00','kWh','actual','ok','','SP-1',1772294401500,NULL,0,0,'1','secondary',NULL,'he1','bbbbbbbb-0000-4000-8000-000000000002',2,'44e9ac958247b9c8f5a5540d05de9b56',1772294400000);
CREATE TABLE dead_letter (headend TEXT NOT NULL, hash TEXT NOT NULL, topic TEXT NOT NULL,
    code TEXT NOT NULL, reason TEXT NOT NULL, size BIGINT NOT NULL, beginning TEXT NOT NULL,
    first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL, times BIGINT NOT NULL,
    PRIMARY KEY (headend, hash));
INSERT INTO "dead_letter" VALUES('he1','795b6904e54f82411df4b0e27a373a55eea3f9d66dac5a9bce1dd92f7b401da5','meter/v1/he1/feed/billing','not_json','not JSON: JSON is malformed: invalid character (byte 0)',7,'67617262616765',1772294400000,1772294400000,1);
CREATE TABLE event (headend TEXT NOT NULL, event_id TEXT NOT NULL, epoch TEXT NOT NULL,
    seq BIGINT NOT NULL, kind TEXT NOT NULL, at_ms BIGINT NOT NULL, fields TEXT NOT NULL,
    PRIMARY KEY (headend, event_id));
INSERT INTO "event" VALUES('he1','8d6ac9c5ccfe81ebaf58de5e2f3dac97','aaaaaaaa-0000-4000-8000-000000000001',2,'meter_exchange',1772337600000,'{"by": "fitter", "new_address": "000000000002", "new_initial": {"active_import_total": "0.26"}, "new_meter": "M-2", "old_final": {"active_import_total": "105.50"}, "old_meter": "M-1", "reason": "test", "service_point": "SP-1"}');
CREATE TABLE exchange (headend TEXT NOT NULL, epoch TEXT NOT NULL, ref TEXT NOT NULL,
    request TEXT NOT NULL, reply TEXT, bus TEXT NOT NULL, received_ms BIGINT NOT NULL,
    attempts BIGINT NOT NULL, software TEXT NOT NULL, PRIMARY KEY (headend, epoch, ref));
INSERT INTO "exchange" VALUES('he1','aaaaaaaa-0000-4000-8000-000000000001','x1-e7a06a0d426b','FEFE68','68AA16','street-a',1772294400000,1,'headend test');
CREATE TABLE feed_cursor (headend TEXT NOT NULL, epoch TEXT NOT NULL,
    ordinal INTEGER NOT NULL, through_seq BIGINT NOT NULL, updated_ms BIGINT NOT NULL,
    PRIMARY KEY (headend, epoch));
INSERT INTO "feed_cursor" VALUES('he1','aaaaaaaa-0000-4000-8000-000000000001',1,6,1772294400000);
INSERT INTO "feed_cursor" VALUES('he1','bbbbbbbb-0000-4000-8000-000000000002',2,2,1772294400000);
CREATE TABLE gap (headend TEXT NOT NULL, epoch TEXT NOT NULL, first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL, reason TEXT NOT NULL, noticed_ms BIGINT NOT NULL,
    PRIMARY KEY (headend, epoch, first_seq));
CREATE TABLE metering (service_point TEXT NOT NULL, meter TEXT NOT NULL,
    PRIMARY KEY (service_point, meter));
INSERT INTO "metering" VALUES('SP-1','M-1');
INSERT INTO "metering" VALUES('SP-1','M-2');
INSERT INTO "metering" VALUES('SP-2','M-3');
INSERT INTO "metering" VALUES('SP-1','M-5');
CREATE TABLE reading (
    meter TEXT NOT NULL, point TEXT NOT NULL, time_ms BIGINT NOT NULL, interval_s BIGINT NOT NULL,
    revision BIGINT NOT NULL, read_id TEXT NOT NULL, value TEXT, unit TEXT NOT NULL,
    status TEXT NOT NULL, verdict TEXT NOT NULL, flags TEXT NOT NULL, service_point TEXT NOT NULL,
    received_ms BIGINT NOT NULL, due_ms BIGINT, late INTEGER NOT NULL, final INTEGER NOT NULL,
    multiplier TEXT NOT NULL, side TEXT NOT NULL, evidence TEXT, headend TEXT NOT NULL,
    epoch TEXT NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (meter, point, time_ms, interval_s));
INSERT INTO "reading" VALUES('M-1','active_import_total',1772294400000,0,1,'832121ff6a64c6fc5c800e4a2877d19a','100.00','kWh','actual','ok','','SP-1',1772294401500,NULL,0,0,'1','secondary','x1-e7a06a0d426b','he1','aaaaaaaa-0000-4000-8000-000000000001',1);
INSERT INTO "reading" VALUES('M-2','active_import_total',1772380800000,0,1,'6c167a0049437599f53216584e671f27','3.26','kWh','actual','ok','','SP-1',1772380801500,NULL,0,0,'1','secondary',NULL,'he1','aaaaaaaa-0000-4000-8000-000000000001',3);
INSERT INTO "reading" VALUES('M-3','active_import_total',1772294400000,0,1,'54359e4c00b898e0e9a700e75b85a62f','7.00','kWh','actual','ok','','SP-2',1772294401500,1772294400000,0,0,'1','secondary',NULL,'he1','aaaaaaaa-0000-4000-8000-000000000001',4);
INSERT INTO "reading" VALUES('M-3','active_export_total',1772294400000,0,1,'27b4d4caeb3a2f8b2e7b2c6adc2e1d8f','5.00','kWh','actual','ok','','SP-2',1772294401500,1772294400000,0,0,'1','secondary',NULL,'he1','aaaaaaaa-0000-4000-8000-000000000001',4);
INSERT INTO "reading" VALUES('M-1','active_import_total',1772294460000,0,2,'7a90ef3f28c71e2e60a23974ae58a478',NULL,'kWh','null','ok','withdrawn','SP-1',1772294461500,NULL,0,0,'1','secondary',NULL,'he1','aaaaaaaa-0000-4000-8000-000000000001',6);
INSERT INTO "reading" VALUES('M-5','active_import_total',1772294400000,0,1,'44e9ac958247b9c8f5a5540d05de9b56','1.00','kWh','actual','ok','','SP-1',1772294401500,NULL,0,0,'1','secondary',NULL,'he1','bbbbbbbb-0000-4000-8000-000000000002',1);
CREATE TABLE reading_history (
    meter TEXT NOT NULL, point TEXT NOT NULL, time_ms BIGINT NOT NULL, interval_s BIGINT NOT NULL,
    revision BIGINT NOT NULL, read_id TEXT NOT NULL, value TEXT, unit TEXT NOT NULL,
    status TEXT NOT NULL, verdict TEXT NOT NULL, flags TEXT NOT NULL, service_point TEXT NOT NULL,
    received_ms BIGINT NOT NULL, due_ms BIGINT, late INTEGER NOT NULL, final INTEGER NOT NULL,
    multiplier TEXT NOT NULL, side TEXT NOT NULL, evidence TEXT, headend TEXT NOT NULL,
    epoch TEXT NOT NULL, seq BIGINT NOT NULL, superseded_by TEXT NOT NULL,
    PRIMARY KEY (meter, point, time_ms, interval_s, read_id));
INSERT INTO "reading_history" VALUES('M-1','active_import_total',1772294460000,0,1,'c7b5fbf2ad54ae26d0b2885fb85d5c77','66','kWh','actual','ok','','SP-1',1772294461500,NULL,0,0,'1','secondary',NULL,'he1','aaaaaaaa-0000-4000-8000-000000000001',5,'7a90ef3f28c71e2e60a23974ae58a478');
CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY, applied_ms BIGINT NOT NULL, software TEXT NOT NULL);
INSERT INTO "schema_version" VALUES(1,1772294400000,'headend 0.1.0');
CREATE INDEX reading_by_id ON reading (read_id);
CREATE INDEX reading_history_by_id ON reading_history (read_id);
CREATE INDEX event_by_kind ON event (kind, at_ms);
COMMIT;
