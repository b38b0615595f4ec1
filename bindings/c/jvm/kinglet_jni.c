/* The native half of rs.kinglet.Kinglet. */
#include <jni.h>
#include <kinglet.h>

#include <string.h>

#define NATIVE(type, name) JNIEXPORT type JNICALL Java_rs_kinglet_Kinglet_##name

static void throw(JNIEnv *env, const char *class_name, const char *message) {
  jclass class = (*env)->FindClass(env, class_name);
  if (class != NULL) (*env)->ThrowNew(env, class, message);
}

/* Whether an array can be used: one that is null throws. */
static int is_there(JNIEnv *env, jbyteArray array) {
  if (array == NULL) throw(env, "java/lang/NullPointerException", "the array is null");
  return array != NULL;
}

static jlong model_or_throw(JNIEnv *env, kinglet_status status, kinglet_model *model) {
  if (status != KINGLET_STATUS_OK) throw(env, "java/lang/IllegalArgumentException", kinglet_last_error());
  return (jlong)(intptr_t)model;
}

/* `path` ends with a zero byte. */
NATIVE(jlong, open)(JNIEnv *env, jclass self, jbyteArray path) {
  kinglet_model *model = NULL;
  kinglet_status status;
  jbyte *bytes;
  (void)self;
  if (!is_there(env, path) || (bytes = (*env)->GetByteArrayElements(env, path, NULL)) == NULL) return 0;
  status = kinglet_model_open((const char *)bytes, NULL, &model);
  (*env)->ReleaseByteArrayElements(env, path, bytes, JNI_ABORT);
  return model_or_throw(env, status, model);
}

NATIVE(jlong, fromBytes)(JNIEnv *env, jclass self, jbyteArray bundle) {
  kinglet_model *model = NULL;
  kinglet_status status;
  jbyte *bytes;
  (void)self;
  if (!is_there(env, bundle) || (bytes = (*env)->GetByteArrayElements(env, bundle, NULL)) == NULL) return 0;
  status = kinglet_model_from_bytes((const uint8_t *)bytes, (size_t)(*env)->GetArrayLength(env, bundle), NULL, &model);
  (*env)->ReleaseByteArrayElements(env, bundle, bytes, JNI_ABORT);
  return model_or_throw(env, status, model);
}

/* A string of UTF-8: NewStringUTF takes Java's own kind alone. Null with an exception when memory lacks. */
static jstring string(JNIEnv *env, const char *utf8) {
  const size_t length = strlen(utf8);
  jobject made = NULL;
  jclass class;
  jmethodID new;
  jstring charset;
  jbyteArray bytes;
  if ((*env)->PushLocalFrame(env, 4) != 0) return NULL;
  class = (*env)->FindClass(env, "java/lang/String");
  new = class == NULL ? NULL : (*env)->GetMethodID(env, class, "<init>", "([BLjava/lang/String;)V");
  charset = new == NULL ? NULL : (*env)->NewStringUTF(env, "UTF-8");
  bytes = charset == NULL ? NULL : (*env)->NewByteArray(env, (jsize)length);
  if (bytes != NULL) {
    (*env)->SetByteArrayRegion(env, bytes, 0, (jsize)length, (const jbyte *)utf8);
    made = (*env)->NewObject(env, class, new, bytes, charset);
  }
  return (jstring)(*env)->PopLocalFrame(env, made);
}

NATIVE(jobject, classify)(JNIEnv *env, jclass self, jlong handle, jbyteArray text) {
  const kinglet_model *model = (const kinglet_model *)(intptr_t)handle;
  kinglet_answer answer;
  kinglet_status status;
  jbyte *bytes;
  jclass class;
  jmethodID new;
  jstring label;
  (void)self;
  if (!is_there(env, text) || (bytes = (*env)->GetByteArrayElements(env, text, NULL)) == NULL) return NULL;
  status = kinglet_model_classify(model, (const char *)bytes, (size_t)(*env)->GetArrayLength(env, text), &answer);
  (*env)->ReleaseByteArrayElements(env, text, bytes, JNI_ABORT);
  if (status != KINGLET_STATUS_OK) {
    throw(env, "java/lang/IllegalArgumentException", kinglet_last_error());
    return NULL;
  }
  class = (*env)->FindClass(env, "rs/kinglet/Kinglet$Answer");
  new = class == NULL ? NULL : (*env)->GetMethodID(env, class, "<init>", "(Ljava/lang/String;FZ)V");
  label = new == NULL ? NULL : string(env, kinglet_model_label(model, answer.label));
  if (label == NULL) return NULL;
  return (*env)->NewObject(env, class, new, label, (jdouble)answer.probability, answer.unsure != 0);
}

NATIVE(jobjectArray, labels)(JNIEnv *env, jclass self, jlong handle) {
  const kinglet_model *model = (const kinglet_model *)(intptr_t)handle;
  const size_t count = kinglet_model_num_labels(model);
  jclass class = (*env)->FindClass(env, "java/lang/String");
  jobjectArray labels = class == NULL ? NULL : (*env)->NewObjectArray(env, (jsize)count, class, NULL);
  size_t i;
  (void)self;
  for (i = 0; labels != NULL && i < count; i++) {
    jstring label = string(env, kinglet_model_label(model, i));
    if (label == NULL) return NULL;
    (*env)->SetObjectArrayElement(env, labels, (jsize)i, label);
    (*env)->DeleteLocalRef(env, label);
  }
  return labels;
}

NATIVE(void, free)(JNIEnv *env, jclass self, jlong handle) {
  (void)env;
  (void)self;
  kinglet_model_free((kinglet_model *)(intptr_t)handle);
}
